"""The text of a trajectory role by role: words are joined as the tokenizer joins them, whole characters wherever they are whole."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from asyncppo.report.trajectories import TokenView
from asyncppo_runtime.inspect.trajectory import _runs
from asyncppo_runtime.policy import PolicyTokenizer


@pytest.fixture(scope="module")
def letters() -> PolicyTokenizer:
    """One token a byte, as a byte-level vocabulary without any merge has it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {one: index for index, one in enumerate([*alphabet, "<eos>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    hf = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    eos = vocabulary["<eos>"]
    return PolicyTokenizer(hf=hf, vocab_size=len(vocabulary), bos_id=-1, eos_id=eos, pad_id=eos, stop_token_ids=[eos])


def said(tokenizer: PolicyTokenizer, *parts: tuple[str, str]) -> list[TokenView]:
    """Tokens of these texts, (role, text) one after the other."""
    return [
        TokenView(id=token, text="", role=role)
        for role, text in parts
        for token in tokenizer.hf.encode(text, add_special_tokens=False)
    ]


def test_words_are_not_torn(letters: PolicyTokenizer) -> None:
    tokens = said(letters, ("environment", "user: who are you?"), ("model", " I am Straße 🙂"), ("environment", "\nok"))
    assert [(run.role, run.text) for run in _runs(tokens, letters)] == [
        ("environment", "user: who are you?"),
        ("model", " I am Straße 🙂"),
        ("environment", "\nok"),
    ]


def test_half_a_character_at_the_border_loses_nothing_but_itself(letters: PolicyTokenizer) -> None:
    tokens = said(letters, ("environment", "a 🙂 b"))
    tokens = [
        TokenView(id=token.id, text="", role="environment" if at < 4 else "model") for at, token in enumerate(tokens)
    ]
    first, second = _runs(tokens, letters)
    assert first.text.startswith("a ")
    assert second.text.endswith(" b")


def test_an_empty_trajectory_has_no_runs(letters: PolicyTokenizer) -> None:
    assert _runs([], letters) == []
