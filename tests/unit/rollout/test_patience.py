"""Waiting with a limit: as asyncio.timeout does, whether or not the coroutine ever waits, and against one that will not end."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from asyncppo_runtime.rollout import patience
from asyncppo_runtime.rollout.holds import Holds
from asyncppo_runtime.rollout.patience import LateError


@dataclass
class Caller:
    """Whose call it is."""

    dropped: bool = False


async def within(seconds: float, coroutine: Coroutine[Any, Any, Any], caller: Caller | None = None) -> Any:
    return await patience.within(seconds, coroutine, Holds(), caller or Caller())


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GRACE_SECONDS", 0.05)


async def at_once(value: int) -> int:
    return value


async def later(value: int) -> int:
    for _ in range(3):
        await asyncio.sleep(0)
    return value


async def never(log: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        log.append("cancelled")
        raise


async def own_timeout(wait: bool) -> None:
    if wait:
        await asyncio.sleep(0)
    raise TimeoutError("theirs")


async def nested() -> str:
    async with asyncio.timeout(30):
        await asyncio.sleep(0)
        task = asyncio.create_task(at_once(4))
        return f"{await task} {asyncio.current_task() is not task}"


async def test_results_come_through() -> None:
    assert await within(1, at_once(5)) == 5
    assert await within(1, later(6)) == 6
    assert await within(1, nested()) == "4 True"


async def test_what_takes_too_long_is_cancelled() -> None:
    log: list[str] = []
    with pytest.raises(LateError, match=r"0\.01 s"):
        await within(0.01, never(log))
    assert log == ["cancelled"]


@pytest.mark.parametrize("wait", [False, True])
async def test_a_timeout_of_its_own_is_not_ours(wait: bool) -> None:
    with pytest.raises(TimeoutError, match="theirs"):
        await within(30, own_timeout(wait))


async def test_a_cancellation_from_outside_reaches_it_and_is_passed_on() -> None:
    log: list[str] = []
    caller = Caller()
    task = asyncio.create_task(within(30, never(log), caller))
    await asyncio.sleep(0)
    caller.dropped = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["cancelled"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("wait", [False, True])
async def test_whatever_it_raises_comes_through(kind: type[BaseException], wait: bool) -> None:
    async def raising() -> None:
        if wait:
            await asyncio.sleep(0.001)
        raise kind

    with pytest.raises(kind):
        await within(30, raising())


async def shrugs(wait: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    while True:
        try:
            await wait()
        except asyncio.CancelledError:
            continue


async def in_a_task_that_shrugs() -> None:
    """Waits for another task, which is cancelled in its place and does not care."""
    await asyncio.create_task(shrugs(lambda: asyncio.sleep(0.01)))


async def gathered() -> None:
    await asyncio.gather(shrugs(lambda: asyncio.sleep(0.01)), asyncio.sleep(3600))


@pytest.mark.parametrize(
    "stubborn",
    [
        lambda: shrugs(lambda: asyncio.sleep(3600)),
        lambda: shrugs(lambda: asyncio.sleep(0)),
        lambda: shrugs(lambda: asyncio.shield(asyncio.sleep(3600))),
        in_a_task_that_shrugs,
        gathered,
    ],
    ids=["sleeps", "yields", "shields", "another task", "gathers"],
)
@pytest.mark.parametrize("how", ["late", "dropped"])
async def test_one_that_swallows_cancellations_is_left_behind(
    stubborn: Callable[[], Coroutine[Any, Any, Any]], how: str, short_grace: None
) -> None:
    caller = Caller()
    before = asyncio.all_tasks()
    task = asyncio.create_task(within(0.05 if how == "late" else 30, stubborn(), caller))
    await asyncio.sleep(0.02)
    if how == "dropped":
        caller.dropped = True
        task.cancel()
    done, _ = await asyncio.wait([task], timeout=20)
    for left in asyncio.all_tasks() - before - done:
        _end(left)
    assert done
    if how == "dropped":
        assert task.cancelled()
    elif stubborn is gathered:  # it lets go as soon as one of its tasks is cancelled
        assert isinstance(task.exception(), LateError)
    else:
        assert "went on for 0.05 s after it was cancelled" in str(task.exception())


def _end(task: "asyncio.Task[Any]") -> None:
    """A task that ignores cancellation ends with the coroutine in it."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()


async def test_a_result_after_the_time_is_late_and_the_task_is_as_it_was() -> None:
    async def late() -> int:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return 5
        return 6

    with pytest.raises(LateError):
        await within(0.01, late())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    async with asyncio.timeout(30):
        await asyncio.sleep(0.001)


async def test_it_may_clean_up_after_its_time() -> None:
    log: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.02)
            log.append("tidied")

    with pytest.raises(LateError):
        await within(0.01, tidy())
    assert log == ["tidied"]


async def test_scopes_of_its_own_work_across_waits() -> None:
    """What is entered before the first wait is left after it, in the same task: a time limit of its own, then a cancellation of its own."""

    async def careful() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            pass
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        try:
            await asyncio.create_task(asyncio.sleep(3600))
        except asyncio.CancelledError:
            task.uncancel()
        await asyncio.sleep(0.2)  # longer than the grace: nobody has told it to stop
        return "done"

    assert await within(30, careful()) == "done"


@pytest.mark.parametrize("wait", [False, True])
async def test_one_that_blocks_is_late_though_it_answers(wait: bool) -> None:
    async def blocking() -> int:
        if wait:
            await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251 - as environments do
        return 1

    holds = Holds()
    with pytest.raises(LateError, match=r"held the event loop"):
        await patience.within(0.05, blocking(), holds, Caller())
    assert 0.1 < holds.seconds < 5


async def test_what_others_hold_the_loop_is_not_its_time() -> None:
    holds = Holds()

    async def blocking() -> None:
        time.sleep(0.5)  # noqa: ASYNC251 - as environments do

    async def innocent() -> str:
        await asyncio.sleep(0.1)
        return "in time"

    task = asyncio.create_task(patience.within(0.4, innocent(), holds, Caller()))
    await asyncio.sleep(0.01)
    await patience.within(30, blocking(), holds, Caller())
    assert await task == "in time"


async def test_what_can_never_be_waited_for_is_said_at_once() -> None:
    async def itself() -> None:
        task: asyncio.Task[None] | None = asyncio.current_task()
        assert task is not None
        await task

    with pytest.raises(RuntimeError, match="wait for itself"):
        await within(30, itself())
    other = asyncio.new_event_loop()
    theirs = other.create_task(at_once(5))

    async def of_another_loop() -> None:
        await theirs

    with pytest.raises(RuntimeError, match="a Task of another event loop"):
        await within(30, of_another_loop())
    await asyncio.to_thread(other.run_until_complete, theirs)
    other.close()
