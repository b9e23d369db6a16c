"""What an environment answers, judged before it is used: kinds, numbers, sizes. Owns these rules and their messages.

Nothing here trusts a value to be what it looks like: comparing it, turning it into a number, even printing it runs the environment's
code. Does not own what becomes of an episode whose answer is refused (`agent.py`), nor encoding (`asyncppo_runtime.policy`).
"""

import math
import numbers
import traceback
from array import array
from collections.abc import Mapping
from decimal import Decimal
from operator import index
from typing import TypeVar

import msgspec

from asyncppo.printable import printable
from asyncppo_runtime.environments.interface import Observation, Turn
from asyncppo_runtime.rollout.holds import HoldError

T = TypeVar("T")

SHOWN_CHARACTERS = 80
ERROR_CHARACTERS = 500
TRACE_CHARACTERS = 8192


class AnswerError(Exception):
    """An answer that is refused; the message shows it, shortened, and says what is allowed."""


class TooLongError(Exception):
    """An observation that cannot fit the context, whatever its words are."""


class Answers(msgspec.Struct, frozen=True):
    """The limits: reward_bound (`spec.reward.bound`), context_length (`spec.sampling.contextLength`)."""

    reward_bound: float
    context_length: int

    def reward(self, turn: Turn, so_far: float) -> float:
        """The episode's rewards with this turn's. A reward is one real number: Python's, or a numpy or torch scalar, or an array or a
        tensor that holds one; True counts 1. Raises AnswerError."""
        earned = turn.reward
        if type(earned) is not float:
            earned = _number(earned)
        total = so_far + earned
        bound = self.reward_bound
        if -bound <= earned <= bound and -bound <= total <= bound:  # false for a nan
            return total
        if -bound <= earned <= bound:
            raise AnswerError(f"the episode's rewards add up to {total:g}; {self._allowed('their sum')}")
        raise AnswerError(f"a reward of {earned:g}; {self._allowed('a reward')}")

    def _allowed(self, what: str) -> str:
        return f"{what} is a finite number from {-self.reward_bound:g} to {self.reward_bound:g} (spec.reward.bound)"

    def observation(self, value: object) -> Observation:
        """An Observation with exactly one of its three fields, of the kind it says, token ids as plain integers. Raises AnswerError,
        TooLongError."""
        seen = of_kind(value, Observation)
        text, messages, token_ids = seen.text, seen.messages, seen.token_ids
        if (text is not None) + (messages is not None) + (token_ids is not None) != 1:
            raise AnswerError("an Observation has exactly one of text, messages and token_ids; text='' says nothing")
        if text is not None:
            if type(text) is str:
                return seen
            if isinstance(text, str):
                return Observation(text=str.__str__(text))
            raise AnswerError(f"an observation's text is a str, not {shown(text)}")
        if messages is not None:
            return Observation(messages=self._messages(messages))
        return Observation(token_ids=self._token_ids(token_ids))

    def _messages(self, messages: object) -> list[dict[str, str]]:
        if not isinstance(messages, list | tuple):
            raise AnswerError(f"an observation's messages are a list, not {shown(messages)}")
        if not messages:
            raise AnswerError("an observation's messages are an empty list; text='' says nothing")
        if len(messages) > self.context_length:
            raise TooLongError
        for message in messages:
            if not isinstance(message, Mapping):
                raise AnswerError(f"a message is a dict with role and content, not {shown(message)}")
            for field in ("role", "content"):
                if not isinstance(message.get(field), str):
                    raise AnswerError(
                        f"a message's {field} is a str, not {shown(message.get(field))}; message: {shown(message)}"
                    )
        return [dict(message) for message in messages]

    def _token_ids(self, token_ids: object) -> list[int]:
        listed = _listed(token_ids)
        if len(listed) >= self.context_length:
            raise TooLongError
        return [token if type(token) is int else _token_id(token) for token in listed]


def of_kind(value: object, kind: type[T]) -> T:
    """The value, if it is one. Raises AnswerError."""
    if not isinstance(value, kind):
        raise AnswerError(f"an environment answers with {kind.__name__}, not {shown(value)}")
    return value


def done(turn: Turn) -> bool:
    """Whether the episode is over: a bool, Python's or numpy's or a tensor's, or 0 or 1. Raises AnswerError."""
    value = turn.done
    if value is True or value is False:
        return value
    plain = _plain(value)
    if isinstance(plain, bool | int) and plain in (0, 1):
        return bool(plain)
    raise AnswerError(f"done is True or False, not {shown(value)}")


def shown(value: object) -> str:
    """The value in words: its kind and its beginning, whatever printing it does, but for holding the event loop."""
    try:
        text = repr(value[: SHOWN_CHARACTERS + 1] if type(value) in (str, bytes, list, tuple) else value)  # type: ignore[index]
    except HoldError:
        raise
    except BaseException as error:  # noqa: BLE001 - a value that cannot be printed is refused all the same
        text = f"a value whose repr raises {type(error).__name__}"
    return f"{_clean(text, SHOWN_CHARACTERS)} ({type(value).__name__})"


def told(error: BaseException) -> str:
    """An exception's text, safe to send: printing it may raise, and a file name in it may hold bytes that are no UTF-8. Raises HoldError
    where printing it holds the event loop."""
    try:
        text = str(error)
    except HoldError:
        raise
    except BaseException as other:  # noqa: BLE001 - as above
        text = f"its text cannot be had, that raises {type(other).__name__}"
    name = type(error).__name__
    return _clean(f"{name}: {text}" if text else name, ERROR_CHARACTERS)


def trace(error: BaseException) -> str:
    """An exception's whole trace, safe to print: of a very long one its beginning and its end. Raises HoldError as `told` does."""
    try:
        text = "".join(traceback.format_exception(error))
    except HoldError:
        raise
    except BaseException as other:  # noqa: BLE001 - as above
        text = f"{type(error).__name__}, whose trace cannot be had: that raises {type(other).__name__}"
    return shortened(text.rstrip("\n"))


def shortened(text: str) -> str:
    """Text for the log: of a very long one its beginning and its end, without a character that a terminal would obey."""
    left_out = len(text) - TRACE_CHARACTERS
    if left_out > 0:
        half = TRACE_CHARACTERS // 2
        text = f"{text[:half]}\n[… {left_out} characters …]\n{text[-half:]}"
    return printable(text)


def _clean(text: str, most: int) -> str:
    short = text if len(text) <= most else text[: most - 1] + "…"
    return short.encode("utf-8", "backslashreplace").decode()


def _number(value: object) -> float:
    plain = _plain(value)
    if isinstance(plain, numbers.Real | Decimal):
        try:
            return float(plain)
        except OverflowError:
            return math.inf
    raise AnswerError(f"a reward is one real number, not {shown(value)}")


def _plain(value: object) -> object:
    """A scalar of numpy or torch, or an array of one, as Python's own; anything else as it is."""
    if type(value) in (int, bool):
        return value
    item = getattr(value, "item", None)
    if not callable(item):
        return value
    try:
        return item()
    except (ValueError, RuntimeError, TypeError):  # an array of several, a dict's method of another meaning
        return value


def _listed(token_ids: object) -> list[object]:
    """What may hold ids, as a list. Not what has no order, or no end, or whose items only look like ids (bytes)."""
    if isinstance(token_ids, list | tuple | array):
        return list(token_ids)
    if callable(getattr(token_ids, "tolist", None)) and getattr(token_ids, "ndim", None) == 1:
        listed = token_ids.tolist()  # type: ignore[attr-defined]
        if isinstance(listed, list):
            return listed
    raise AnswerError(
        f"an observation's token_ids are a list of integers (or an array of one dimension), not {shown(token_ids)}"
    )


def _token_id(token: object) -> int:
    try:
        if not isinstance(token, bool):
            return int(index(token))  # type: ignore[arg-type]
    except TypeError:
        pass
    raise AnswerError(f"a token id is an integer, not {shown(token)}")
