"""Chat templates as id increments: the opening of a conversation, and what stands between two model turns.

A template renders whole conversations; re-rendering one would re-encode what the model said. So the text after the model's words
is found by rendering a stand-in for them, and only that text is encoded. A model without a template reads the contents as plain
text, parted by blank lines. Owns this; does not own roles' meaning.
"""

from typing import TYPE_CHECKING

from asyncppo_runtime.policy.errors import EncodingError, TemplateError, TooLongError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

STAND_IN = "asyncppo-stand-in-of-a-model-turn"


def opening(hf: "PreTrainedTokenizerBase", messages: Messages, most: int) -> list[int]:
    """Ids of a conversation's first messages up to where the model is to speak; `most` as of `encode`. Raises EncodingError."""
    if not _has_template(hf):
        return encode(hf, _plain(messages), True, most)
    return encode(hf, _render(hf, messages), False, most)


def continuation(hf: "PreTrainedTokenizerBase", messages: Messages, most: int) -> list[int]:
    """Ids from the end of the model's words (its end-of-turn token included) to where it is to speak again.

    messages: what comes after the model's turn. Raises TemplateError when the template changes or drops the model's words.
    """
    if not _has_template(hf):
        return encode(hf, "\n\n" + _plain(messages), False, most)
    before: Messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": STAND_IN}]
    text = _render(hf, before + messages)
    if text.count(STAND_IN) != 1:
        raise TemplateError(
            "the chat template does not show an earlier model turn exactly once; use a text observation instead"
        )
    return encode(hf, text.partition(STAND_IN)[2], False, most)


def encode(hf: "PreTrainedTokenizerBase", text: str, special: bool, most: int) -> list[int]:
    """Ids of `text`, with what the tokenizer adds to a beginning (`<bos>`) when `special`. Raises EncodingError; TooLongError for
    more than `most` characters, which are not encoded at all: that takes seconds in which nothing else runs."""
    if len(text) > most:
        raise TooLongError(f"{len(text)} characters, more than {most}")
    try:
        return list(hf(text, add_special_tokens=special)["input_ids"])
    except Exception as error:
        raise EncodingError(f"the tokenizer cannot encode {text[:80]!r}: {error}") from error


def _has_template(hf: "PreTrainedTokenizerBase") -> bool:
    return bool(getattr(hf, "chat_template", None))


def _render(hf: "PreTrainedTokenizerBase", messages: Messages) -> str:
    try:
        return str(hf.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except Exception as error:
        raise TemplateError(f"the chat template refuses these messages: {error}") from error


def _plain(messages: Messages) -> str:
    return "".join(f"{message['content']}\n\n" for message in messages)
