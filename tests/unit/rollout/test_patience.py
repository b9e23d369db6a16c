"""Waiting with a limit behaves as asyncio.timeout does, whether or not the coroutine ever waits."""

import asyncio

import pytest

from asyncppo_runtime.rollout.patience import LateError, within


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
    task = asyncio.create_task(within(30, never(log)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["cancelled"]
