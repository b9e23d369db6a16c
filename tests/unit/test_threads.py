"""The pools: usable threads stay usable whatever hangs, and the program's own are nobody else's."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncppo_runtime import threads
from asyncppo_runtime.threads import DaemonPool, in_thread


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_hanging_calls_are_replaced_when_nobody_waits_for_them(release: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    pool = DaemonPool(2, "test")
    for _ in range(10):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(pool, release.wait), 0.01)
    assert pool.hanging == 10
    assert await asyncio.wait_for(loop.run_in_executor(pool, lambda: "works"), 20) == "works"
    release.set()
    async with asyncio.timeout(20):
        while pool.hanging:  # noqa: ASYNC110 - threads set no event of a loop
            await asyncio.sleep(0.01)
    pool.shutdown()


async def test_no_more_threads_than_allowed_work_at_once(release: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    pool = DaemonPool(3, "test")
    running: list[int] = []

    def work() -> None:
        running.append(1)
        release.wait(20)

    calls = [loop.run_in_executor(pool, work) for _ in range(8)]
    await asyncio.sleep(0.1)
    assert len(running) == 3
    release.set()
    await asyncio.gather(*calls)
    assert len(running) == 8
    pool.shutdown()


async def test_a_call_that_waits_for_a_thread_is_cancelled_for_good(release: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    pool = DaemonPool(1, "test")
    first = loop.run_in_executor(pool, release.wait)
    ran: list[int] = []
    second = loop.run_in_executor(pool, ran.append, 1)
    second.cancel()
    await asyncio.sleep(0.01)
    release.set()
    await first
    await loop.run_in_executor(pool, lambda: None)
    assert (ran, pool.hanging) == ([], 0)
    pool.shutdown()


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_what_a_call_raises_is_raised_where_it_is_awaited(kind: type[BaseException]) -> None:
    def raising() -> None:
        raise kind("theirs")

    pool = DaemonPool(1, "test")
    asyncio.get_running_loop().set_default_executor(pool)
    with pytest.raises(kind, match="theirs"):
        await asyncio.to_thread(raising)
    assert await asyncio.to_thread(lambda: 5) == 5


async def test_the_programs_own_threads_are_free_when_all_others_hang(release: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DaemonPool(2, "environments"))
    calls = [asyncio.create_task(asyncio.to_thread(release.wait)) for _ in range(6)]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(in_thread(lambda: threading.current_thread().name), 20) != "MainThread"
    release.set()
    await asyncio.gather(*calls)


def test_after_its_end_a_pool_takes_no_calls() -> None:
    pool = DaemonPool(1, "test")
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(time.sleep, 0)


def test_a_program_ends_while_its_threads_hang() -> None:
    program = (
        "import asyncio, time\nfrom asyncppo_runtime.threads import DaemonPool\n"
        "async def main():\n"
        "    asyncio.get_running_loop().set_default_executor(DaemonPool(2, 'x'))\n"
        "    await asyncio.wait([asyncio.create_task(asyncio.to_thread(time.sleep, 3600))], timeout=0.1)\n"
        "asyncio.run(main())\nprint('ended')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "ended"), ended.stderr


@pytest.mark.parametrize("folder", ["rollout", "weights/pull.py"])
def test_a_worker_does_not_use_the_environments_threads(folder: str) -> None:
    """`asyncio.to_thread` and `run_in_executor(None, …)` do."""
    where = Path(threads.__file__).parent / folder
    for file in [where] if where.is_file() else where.rglob("*.py"):
        text = file.read_text()
        assert "asyncio.to_thread(" not in text.replace("use asyncio.to_thread", ""), file
        assert "run_in_executor" not in text, file
