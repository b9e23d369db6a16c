"""Chat templates as increments: what is appended over turns is what a whole rendering shows, and sampled ids are never encoded anew."""

from pathlib import Path

import pytest
from tests.unit.rollout.builders import job_spec
from tests.unit.rollout.test_torch_engine import ARCHITECTURES
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from asyncppo_runtime.environments.interface import Observation
from asyncppo_runtime.policy import EncodingError, PolicyTokenizer, build_tokenizer

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nbe good<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DROPS_EARLIER = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}: {% endif %}"
REFUSES = "{{ raise_exception('no') }}"


def chat_tokenizer(template: str | None) -> PolicyTokenizer:
    """One id per character, plus the two markers of ChatML."""
    letters = [chr(code) for code in [10, *range(32, 127)]]
    hf = Tokenizer(WordLevel({word: index for index, word in enumerate(["<pad>", *letters])}))
    hf.pre_tokenizer = Split(Regex("[\\s\\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=hf, pad_token="<pad>", eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = template
    eos = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return PolicyTokenizer(tokenizer, len(tokenizer), -1, eos, 0, [eos])


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("stopped", [True, False])
def test_increments_add_up_to_the_whole_rendering(stopped: bool) -> None:
    tokenizer = chat_tokenizer(CHATML)
    conversation, ids = [user("hi")], tokenizer.first(Observation(messages=[user("hi")]))
    for reply, answer in (("yes", "and then"), ("no", "why")):
        said = tokenizer.hf(reply, add_special_tokens=False)["input_ids"] + ([tokenizer.eos_id] if stopped else [])
        ids += said
        ids += tokenizer.following(Observation(messages=[user(answer)]), said)
        conversation += [{"role": "assistant", "content": reply}, user(answer)]
    whole = tokenizer.hf.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    assert ids == tokenizer.hf(whole, add_special_tokens=False)["input_ids"]


def test_a_tool_message_may_follow() -> None:
    tokenizer = chat_tokenizer(CHATML)
    ids = tokenizer.following(Observation(messages=[{"role": "tool", "content": "42"}]), [5])
    text = "<|im_end|>\n<|im_start|>tool\n42<|im_end|>\n<|im_start|>assistant\n"
    assert ids == tokenizer.hf(text, add_special_tokens=False)["input_ids"]


def test_a_template_that_drops_earlier_turns_is_refused() -> None:
    with pytest.raises(EncodingError, match="earlier model turn"):
        chat_tokenizer(DROPS_EARLIER).following(Observation(messages=[user("x")]), [5])


def test_a_template_that_refuses_is_an_encoding_error() -> None:
    with pytest.raises(EncodingError, match="refuses"):
        chat_tokenizer(REFUSES).first(Observation(messages=[user("x")]))


def test_without_a_template_messages_are_plain_text() -> None:
    tokenizer = chat_tokenizer(None)
    first = tokenizer.first(Observation(messages=[{"role": "system", "content": "be good"}, user("hi")]))
    assert first == tokenizer.hf("be good\n\nhi\n\n")["input_ids"]
    later = tokenizer.following(Observation(messages=[user("more")]), [5])
    assert later == tokenizer.hf("\n\nmore\n\n")["input_ids"]


def test_stop_tokens_are_the_tokenizers_and_the_generation_configs(tmp_path: Path) -> None:
    model = ARCHITECTURES["grouped-query attention"]()
    model.generation_config.eos_token_id = [5, 2]
    model.save_pretrained(tmp_path)
    from asyncppo_runtime.policy.symbols import symbol_tokenizer

    symbol_tokenizer([f"w{i}" for i in range(26)]).save_pretrained(tmp_path)
    tokenizer = build_tokenizer(job_spec(model={"pretrained": str(tmp_path)}))
    assert tokenizer.stop_token_ids == [2, 5]
