"""Bounds how many reconciles run at once, and says whose turn is next.

A job just created must be told that it was seen before the operator spends seconds on making the objects of those before it; and a dozen
jobs whose objects are made at once only wait for the API server together, each as long as all.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum


class Lane(Enum):
    """What a turn is for, in the order in which they are served. BUILD: a job's objects are applied, all of them."""

    FIRST = "first"
    LOOK = "look"
    BUILD = "build"


class Slots:
    """`count` turns at once, of these at most `builders` in the lane BUILD; within a lane first come, first served. Of one event loop."""

    def __init__(self, count: int, builders: int) -> None:
        self._free = count
        self._free_builders = builders
        self._lines: dict[Lane, deque[asyncio.Future[None]]] = {lane: deque() for lane in Lane}

    @asynccontextmanager
    async def turn(self, lane: Lane) -> AsyncIterator[None]:
        """Wait for a turn and have it. Whoever has one keeps it."""
        await self._take(lane)
        try:
            yield
        finally:
            self._give(lane)

    def open(self, lane: Lane) -> bool:
        """Whether a turn in this lane would begin at once."""
        return self._free > 0 and (lane is not Lane.BUILD or self._free_builders > 0)

    async def _take(self, lane: Lane) -> None:
        if self.open(lane):
            self._count(lane, -1)
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines[lane].append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            # given and cancelled in the same moment: the turn is another's
            if mine.done() and not mine.cancelled():
                self._give(lane)
            raise

    def _give(self, lane: Lane) -> None:
        self._count(lane, 1)
        for following, line in self._lines.items():
            while line and self.open(following):
                if not (waiting := line.popleft()).done():
                    self._count(following, -1)
                    waiting.set_result(None)

    def _count(self, lane: Lane, change: int) -> None:
        self._free += change
        if lane is Lane.BUILD:
            self._free_builders += change
