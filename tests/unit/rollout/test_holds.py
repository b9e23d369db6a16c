"""Code that holds the event loop too long is interrupted where it is, asleep or computing; what does not belong to it never is."""

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from asyncppo_runtime.rollout import patience
from asyncppo_runtime.rollout.holds import HoldError, Holds, HoldWatch
from asyncppo_runtime.rollout.patience import LateError


class Caller:
    """Nobody drops it."""

    dropped = False


@pytest.fixture
def holds() -> Iterator[Holds]:
    holds = Holds()
    watch = HoldWatch(holds, 0.2)
    watch.start()
    yield holds
    watch.stop()


def stubborn() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(3600)


@pytest.mark.parametrize(
    "hold",
    [lambda: time.sleep(3600), lambda: re.match(r"(a+)+$", "a" * 64 + "b"), stubborn],
    ids=["sleeps", "backtracks", "catches"],
)
async def test_a_hold_is_interrupted_and_its_place_named(holds: Holds, hold: Callable[[], object]) -> None:
    async def blocking() -> None:
        hold()

    with pytest.raises(LateError, match=r"held the event loop for .* at .*\.py:\d+ in "):
        await patience.within(30, blocking(), holds, Caller())
    assert holds.since == 0.0
    assert holds.seconds > 0.2


async def test_the_workers_own_code_is_never_interrupted(holds: Holds) -> None:
    time.sleep(1.5)  # noqa: ASYNC251 - nobody's hold
    assert holds.seconds == 0.0


def test_a_hold_that_has_just_ended_is_over_whatever_comes_then() -> None:
    holds = Holds()
    before = signal.signal(signal.SIGURG, HoldWatch(holds, 0.0)._look)
    try:
        with pytest.raises(HoldError):
            holds.run(lambda: signal.raise_signal(signal.SIGURG))
        assert holds.since == 0.0
        holds.run(signal.raise_signal, signal.SIGURG)  # is seen in `run` itself, where no line of the environment's is
        assert holds.since == 0.0
    finally:
        signal.signal(signal.SIGURG, before)


def test_a_long_hold_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    holds = Holds()
    holds.tell("step", 0.05)
    for _ in range(3):
        holds.tell("step", 0.5)
    assert [record.getMessage()[:38] for record in caplog.records] == ["step held the event loop for 0.50 s: n"]
