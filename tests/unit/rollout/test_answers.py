"""What an environment may answer: every kind of number and sequence that people's libraries give, and nothing else."""

import array
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asyncppo_runtime.environments.interface import Observation, Turn
from asyncppo_runtime.rollout.answers import AnswerError, Answers, TooLongError, done, of_kind, shown, told

ANSWERS = Answers(reward_bound=1e6, context_length=16)


def turn(reward: Any = 0.0, done: Any = False) -> Turn:
    return Turn(Observation(text=""), reward, done)


class Evil:
    """Raises at whatever is done to it."""

    def __repr__(self) -> str:
        raise SystemExit(3)

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


@pytest.mark.parametrize(
    ("reward", "is_worth"),
    [
        (0.5, 0.5),
        (2, 2.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array([0.5]), 0.5),
        (np.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([[0.5]], dtype=torch.bfloat16, requires_grad=True), 0.5),
        (Fraction(1, 2), 0.5),
        (Decimal("0.5"), 0.5),
        (-1e6, -1e6),
    ],
)
def test_real_numbers_of_every_kind_count(reward: Any, is_worth: float) -> None:
    total = ANSWERS.reward(turn(reward), 0.0)
    assert (total, type(total)) == (is_worth, float)


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-1000001.0, "from -1e+06 to 1e+06 (spec.reward.bound)"),
        (1e308, "1e+308"),
        pytest.param(10**400, "inf", id="10**400"),
        pytest.param(-(10**5000), "inf", id="-10**5000"),
        (np.float32("nan"), "nan"),
        ("1.0", "'1.0' (str)"),
        (None, "None (NoneType)"),
        (1 + 0j, "(1+0j) (complex)"),
        (np.array([1.0, 2.0]), "(ndarray)"),
        (np.str_("1"), "(str_)"),
        (torch.tensor([]), "(Tensor)"),
        ({"reward": 1}, "(dict)"),
    ],
)
def test_everything_else_is_refused_and_shown(reward: Any, says: str) -> None:
    with pytest.raises(AnswerError) as caught:
        ANSWERS.reward(turn(reward), 0.0)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_sum_is_bound_too() -> None:
    assert ANSWERS.reward(turn(4e5), 6e5) == 1e6
    with pytest.raises(AnswerError, match=r"add up to 1\.1e\+06.*spec\.reward\.bound"):
        ANSWERS.reward(turn(5e5), 6e5)


@given(st.floats(), st.floats(-1e6, 1e6))
def test_what_is_taken_is_always_within_the_bound(reward: float, so_far: float) -> None:
    try:
        total = ANSWERS.reward(turn(reward), so_far)
    except AnswerError:
        return
    assert abs(total) <= 1e6
    assert total == so_far + reward


@pytest.mark.parametrize(
    ("value", "is_over"),
    [
        (True, True),
        (False, False),
        (1, True),
        (np.bool_(True), True),
        (np.array([False]), False),
        (torch.tensor(True), True),
    ],
)
def test_done_of_every_kind(value: Any, is_over: bool) -> None:
    assert done(turn(done=value)) is is_over


@pytest.mark.parametrize("value", [None, "false", 2, 0.0, np.array([True, False]), [], torch.tensor(0.5)])
def test_a_done_that_is_neither(value: Any) -> None:
    with pytest.raises(AnswerError, match="done is True or False"):
        done(turn(done=value))


@pytest.mark.parametrize(
    "ids",
    [
        [3, 4],
        (3, 4),
        np.array([3, 4], dtype=np.uint16),
        [np.int64(3), np.int32(4)],
        torch.tensor([3, 4]),
        array.array("i", [3, 4]),
    ],
)
def test_integers_of_every_kind_are_plain_ids(ids: Any) -> None:
    taken = ANSWERS.observation(Observation(token_ids=ids)).token_ids
    assert taken == [3, 4]
    assert {type(token) for token in taken} == {int}


@pytest.mark.parametrize(
    "ids",
    [
        [3.0],
        [True],
        ["3"],
        [None],
        [[3]],
        {3},
        (token for token in [3]),
        b"\x03",
        "3",
        np.array([3.0]),
        np.array([[3]]),
        np.array(3),
        torch.tensor([True]),
        {3: 4},
        7,
    ],
)
def test_what_only_looks_like_ids(ids: Any) -> None:
    with pytest.raises(AnswerError, match="integer"):
        ANSWERS.observation(Observation(token_ids=ids))


@pytest.mark.parametrize(
    "observation",
    [
        Observation(),
        Observation(text="a", token_ids=[3]),
        Observation(text=b"a"),  # type: ignore[arg-type]
        Observation(text=7),  # type: ignore[arg-type]
        Observation(messages=[]),
        Observation(messages="hi"),  # type: ignore[arg-type]
        Observation(messages={"role": "user", "content": "hi"}),  # type: ignore[arg-type]
        Observation(messages=["hi"]),  # type: ignore[list-item]
        Observation(messages=[{"role": "assistant", "content": None}]),  # type: ignore[dict-item]
        Observation(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]),  # type: ignore[dict-item]
        Observation(messages=[{"content": "hi"}]),
        "go",
        None,
    ],
)
def test_observations_that_are_none(observation: Any) -> None:
    with pytest.raises(AnswerError):
        ANSWERS.observation(observation)


def test_what_cannot_fit_is_not_even_looked_at() -> None:
    with pytest.raises(TooLongError):
        ANSWERS.observation(Observation(token_ids=["x"] * 16))  # type: ignore[list-item]
    with pytest.raises(TooLongError):
        ANSWERS.observation(Observation(messages=[{}] * 17))
    assert ANSWERS.observation(Observation(token_ids=[3] * 15)).token_ids == [3] * 15


def test_messages_may_carry_more_than_role_and_content() -> None:
    message: dict[str, Any] = {"role": "tool", "content": "7", "tool_call_id": "x"}
    assert ANSWERS.observation(Observation(messages=[message])).messages == [message]


def test_printing_never_raises() -> None:
    assert shown(Evil()) == "a value whose repr raises SystemExit (Evil)"
    assert len(shown("x" * 10_000_000)) < 120
    assert len(told(ValueError("x" * 10_000_000))) == 500
    assert told(ValueError("\udc80")) == "ValueError: \\udc80"

    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError("no")

    assert told(Mute()) == "Mute: its text cannot be had, that raises KeyError"
    with pytest.raises(AnswerError, match="repr raises"):
        of_kind(Evil(), Turn)
