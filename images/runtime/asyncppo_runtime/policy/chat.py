"""Chat templates as id increments: the opening of a conversation, and what stands between two model turns.

A template renders whole conversations; re-rendering one would re-encode what the model said. So the text after the model's words
is found by rendering a stand-in for them, and only that text is encoded. Owns this; does not own roles' meaning.
"""

from typing import TYPE_CHECKING

from asyncppo_runtime.policy.errors import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

STAND_IN = "asyncppo-stand-in-of-a-model-turn"


def opening(hf: "PreTrainedTokenizerBase", messages: Messages) -> list[int]:
    """Ids of a conversation's first messages up to where the model is to speak. Raises TemplateError without a template."""
    return _encode(hf, _render(hf, messages))


def continuation(hf: "PreTrainedTokenizerBase", messages: Messages) -> list[int]:
    """Ids from the end of the model's words (its end-of-turn token included) to where it is to speak again.

    messages: what comes after the model's turn. Raises TemplateError when the template changes or drops the model's words.
    """
    before: Messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": STAND_IN}]
    text = _render(hf, before + messages)
    if text.count(STAND_IN) != 1:
        raise TemplateError(
            "the chat template does not show an earlier model turn exactly once; use a text observation instead"
        )
    return _encode(hf, text.partition(STAND_IN)[2])


def _render(hf: "PreTrainedTokenizerBase", messages: Messages) -> str:
    if not getattr(hf, "chat_template", None):
        raise TemplateError(
            "the environment speaks in messages, but the model's tokenizer has no chat template; use an instruct model"
        )
    return str(hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _encode(hf: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return list(hf(text, add_special_tokens=False)["input_ids"])
