"""The rules of guess-number, and that its randomness is the task's seed alone."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.guess_number import GuessNumber, reward_at
from asyncppo_runtime.environments.interface import Turn


async def answers(seed: int, *guesses: str, **parameters: int) -> list[Turn]:
    """Play given guesses."""
    environment = GuessNumber(**parameters)
    await environment.reset(Task(0, seed))
    return [await environment.step(guess, []) for guess in guesses]


async def hidden(seed: int) -> int:
    """The seed's number, found by asking."""
    for number in range(16):
        if (await answers(seed, str(number)))[0].done:
            return number
    raise AssertionError("no number is hidden")


async def bisect(seed: int) -> float:
    """The reward of perfect play."""
    environment = GuessNumber()
    await environment.reset(Task(0, seed))
    low, high = 0, 15
    while True:
        guess = (low + high) // 2
        turn = await environment.step(str(guess), [])
        if turn.done:
            return turn.reward
        low, high = (low, guess - 1) if turn.observation.text == "<" else (guess + 1, high)


@given(st.integers(0, 2**63 - 1))
def test_answers_compare_the_hidden_number_with_the_guess(seed: int) -> None:
    number = asyncio.run(hidden(seed))
    for guess in range(16):
        (turn,) = asyncio.run(answers(seed, str(guess)))
        assert turn.observation.text == ("=" if number == guess else "<" if number < guess else ">")
        assert (turn.done, turn.reward) == ((True, 1.0) if number == guess else (False, 0.0))


async def test_found_at_try_k_earns_less_the_later() -> None:
    number = await hidden(3)
    wrong = str((number + 1) % 16)
    for tries in range(1, 6):
        turns = await answers(3, *[wrong] * (tries - 1), str(number))
        assert turns[-1].reward == pytest.approx(1.1 - 0.1 * tries)
        assert turns[-1].done
    turns = await answers(3, *[wrong] * 5)
    assert turns[-1].done
    assert sum(turn.reward for turn in turns) == 0


@pytest.mark.parametrize("guess", ["", "16", "-1", "<", "3 4", "x", "³", "1.0"])
async def test_an_invalid_guess_uses_up_a_try(guess: str) -> None:
    turns = await answers(3, *[guess] * 5)
    assert [turn.observation.text for turn in turns] == ["?"] * 5
    assert [turn.done for turn in turns] == [False] * 4 + [True]


async def test_perfect_play_earns_0_763_on_average() -> None:
    by_number = {await hidden(seed): await bisect(seed) for seed in range(200)}
    assert len(by_number) == 16
    assert sum(by_number.values()) / 16 == pytest.approx(0.7625)
    assert reward_at(1) == 1.0


def test_the_language_has_one_symbol_per_number_and_answer() -> None:
    assert GuessNumber.symbols({}) == [*map(str, range(16)), "<", ">", "=", "?"]
    assert len(GuessNumber.symbols({"numbers": 4})) == 8


@pytest.mark.parametrize(
    "parameters", [{"numbers": 1}, {"numbers": 2.5}, {"tries": 0}, {"tries": 12}, {"delaySeconds": -1}]
)
def test_parameters_out_of_bounds_are_refused(parameters: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        GuessNumber(**parameters)


async def test_delays_have_a_heavy_tail_a_cap_and_come_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def remember(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", remember)
    for seed in range(300):
        environment = GuessNumber(delaySeconds=0.1, delayTail=1.1, delayCap=8.0)
        await environment.reset(Task(0, seed))
        await environment.step("x", [])
    first = list(slept)
    slept.clear()
    for seed in range(300):
        environment = GuessNumber(delaySeconds=0.1, delayTail=1.1, delayCap=8.0)
        await environment.reset(Task(0, seed))
        await environment.step("x", [])
    assert first == slept
    assert min(first) >= 0.1
    assert max(first) == pytest.approx(0.8)
    assert sorted(first)[150] < 0.25 < sum(first) / 300 + 0.05


async def test_a_delay_really_waits() -> None:
    environment = GuessNumber(delaySeconds=0.02)
    await environment.reset(Task(0, 1))
    started = time.monotonic()
    await environment.step("x", [])
    assert time.monotonic() - started >= 0.019
