"""What is cancelled by somebody who has no business to is begun again; what we cancel ourselves ends."""

import asyncio

import pytest

from asyncppo_runtime.rollout import undisturbed as module
from asyncppo_runtime.rollout.undisturbed import CANCELLED, undisturbed


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.001)


async def test_a_foreign_cancellation_begins_it_again_and_ours_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    begun, ending = 0, False

    async def work() -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(undisturbed(work, lambda: ending))
    await asyncio.sleep(0.01)
    for times in range(1, 6):
        task.cancel()
        await asyncio.sleep(0.02)
        assert (begun, task.cancelling()) == (times + 1, 0)
    assert [message.startswith(CANCELLED) for message in caplog.messages] == [True] * 3, "it is not told of every time"
    ending = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_results_and_errors_come_through() -> None:
    async def fails() -> None:
        raise OSError("theirs")

    assert await undisturbed(lambda: asyncio.sleep(0, 5), lambda: False) == 5
    with pytest.raises(OSError, match="theirs"):
        await undisturbed(fails, lambda: False)
