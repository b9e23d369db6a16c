"""Bounds how many reconciles run at once, and says whose turn is next: of a job that never had one, then first come, first served.

A job just created must be told that it was seen before the operator spends seconds on making the objects of those before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """`count` turns at once. Of one event loop."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._newcomers: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def turn(self, newcomer: bool) -> AsyncIterator[None]:
        """Wait for a turn and have it. Newcomers go before all others; whoever has a turn keeps it."""
        await self._take(newcomer)
        try:
            yield
        finally:
            self._give()

    async def _take(self, newcomer: bool) -> None:
        if self._free:
            self._free -= 1
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._newcomers if newcomer else self._others).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            # given and cancelled in the same moment: the turn is another's
            if mine.done() and not mine.cancelled():
                self._give()
            raise

    def _give(self) -> None:
        for line in (self._newcomers, self._others):
            while line:
                if not (following := line.popleft()).done():
                    following.set_result(None)
                    return
        self._free += 1
