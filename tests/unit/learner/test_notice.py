"""No ring is lost between looking and waiting."""

import asyncio

from asyncppo_runtime.learner.notice import Notice


async def test_a_ring_between_look_and_wait_is_seen() -> None:
    notice = Notice()
    tick = notice.tick
    notice.ring()
    await asyncio.wait_for(notice.wait(tick, 3600), 60)


async def test_a_ring_wakes_all_who_wait() -> None:
    notice = Notice()
    waiting = [asyncio.create_task(notice.wait(notice.tick, 3600)) for _ in range(3)]
    await asyncio.sleep(0)
    notice.ring()
    await asyncio.wait_for(asyncio.gather(*waiting), 60)


async def test_without_a_ring_the_wait_ends_by_itself() -> None:
    notice = Notice()
    await notice.wait(notice.tick, 0.01)
