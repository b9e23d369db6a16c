"""Slots: never more turns than allowed, newcomers first, nothing leaks by cancellation."""

import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from asyncppo_operator.slots import Slots


async def test_newcomers_go_before_all_who_wait() -> None:
    slots, order = Slots(1), []

    async def turn(name: str, newcomer: bool) -> None:
        async with slots.turn(newcomer):
            order.append(name)
            await asyncio.sleep(0)

    asked = (("busy", False), ("old 1", False), ("old 2", False), ("new 1", True), ("new 2", True))
    await asyncio.gather(*(turn(*each) for each in asked))
    assert order == ["busy", "new 1", "new 2", "old 1", "old 2"]


@given(
    count=st.integers(1, 4),
    # per turn: newcomer, steps it takes, step at which it is cancelled (0: never)
    turns=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 6)), max_size=12),
)
def test_never_more_than_allowed_and_no_turn_is_lost(count: int, turns: list[tuple[bool, int, int]]) -> None:
    async def run() -> None:
        slots, running, most, done = Slots(count), 0, 0, 0

        async def turn(newcomer: bool, steps: int) -> None:
            nonlocal running, most, done
            async with slots.turn(newcomer):
                running += 1
                most = max(most, running)
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    done += 1
                finally:
                    running -= 1

        tasks = [asyncio.create_task(turn(newcomer, steps)) for newcomer, steps, _ in turns]
        for step in range(1, 7):
            await asyncio.sleep(0)
            for task, (_, _, end) in zip(tasks, turns, strict=True):
                if end == step:
                    task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= count
        assert done >= sum(end == 0 for _, _, end in turns)
        # every slot is free again
        async with asyncio.timeout(10):
            for _ in range(2):
                await asyncio.gather(*(turn(False, 1) for _ in range(count)))

    asyncio.run(run())


async def test_a_turn_given_and_cancelled_at_once_goes_on() -> None:
    slots = Slots(1)
    async with slots.turn(False):
        waiting = asyncio.create_task(_turn(slots))
        after = asyncio.create_task(_turn(slots))
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(10):
        await after


async def _turn(slots: Slots) -> None:
    async with slots.turn(False):
        pass
