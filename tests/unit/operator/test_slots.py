"""Slots: never more turns than allowed, newcomers first, nothing leaks by cancellation."""

import asyncio
from collections import Counter
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from asyncppo_operator.slots import Lane, Slots


async def test_newcomers_first_and_builders_last() -> None:
    slots, order = Slots(1, 1), []

    async def turn(name: str, lane: Lane) -> None:
        async with slots.turn(lane):
            order.append(name)
            await asyncio.sleep(0)

    asked = (
        ("busy", Lane.LOOK),
        ("build", Lane.BUILD),
        ("look 1", Lane.LOOK),
        ("first 1", Lane.FIRST),
        ("look 2", Lane.LOOK),
        ("first 2", Lane.FIRST),
    )
    await asyncio.gather(*(turn(*each) for each in asked))
    assert order == ["busy", "first 1", "first 2", "look 1", "look 2", "build"]


async def test_builders_that_hang_leave_room_for_all_others() -> None:
    slots, never = Slots(3, 2), asyncio.Event()

    async def hang() -> None:
        async with slots.turn(Lane.BUILD):
            await never.wait()

    builders = [asyncio.create_task(hang()) for _ in range(5)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10), slots.turn(Lane.LOOK):
        pass
    for task in builders:
        task.cancel()
    await asyncio.gather(*builders, return_exceptions=True)
    async with asyncio.timeout(10), slots.turn(Lane.BUILD), slots.turn(Lane.BUILD), slots.turn(Lane.LOOK):
        pass


@given(
    count=st.integers(1, 4),
    builders=st.integers(1, 4),
    # per turn: its lane, steps it takes, step at which it is cancelled (0: never)
    turns=st.lists(st.tuples(st.sampled_from(Lane), st.integers(0, 3), st.integers(0, 6)), max_size=12),
)
def test_never_more_than_allowed_and_no_turn_is_lost(
    count: int, builders: int, turns: list[tuple[Lane, int, int]]
) -> None:
    async def run() -> None:
        slots, done = Slots(count, builders), 0
        running: Counter[Lane] = Counter()

        async def turn(lane: Lane, steps: int) -> None:
            nonlocal done
            async with slots.turn(lane):
                running[lane] += 1
                try:
                    assert running.total() <= count
                    assert running[Lane.BUILD] <= builders
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    done += 1
                finally:
                    running[lane] -= 1

        tasks = [asyncio.create_task(turn(lane, steps)) for lane, steps, _ in turns]
        for step in range(1, 7):
            await asyncio.sleep(0)
            for task, (_, _, end) in zip(tasks, turns, strict=True):
                if end == step:
                    task.cancel()
        async with asyncio.timeout(10):
            for answer in await asyncio.gather(*tasks, return_exceptions=True):
                assert answer is None or isinstance(answer, asyncio.CancelledError)
            assert done >= sum(end == 0 for _, _, end in turns)
            # every slot is free again
            for lane in (Lane.LOOK, Lane.BUILD):
                await asyncio.gather(*(turn(lane, 1) for _ in range(count)))

    asyncio.run(run())


async def test_a_turn_given_and_cancelled_at_once_goes_on() -> None:
    slots = Slots(1, 1)

    async def turn() -> None:
        async with slots.turn(Lane.LOOK):
            pass

    async with slots.turn(Lane.LOOK):
        waiting, after = asyncio.create_task(turn()), asyncio.create_task(turn())
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(10):
        await after
