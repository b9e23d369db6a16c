"""Tells waiting tasks that something changed. Owns a count of changes and nothing of what they were: whoever wakes looks again."""

import asyncio
import contextlib


class Notice:
    """A ring is never lost: read `tick`, look, and if there is nothing to do wait for the first ring after that tick."""

    def __init__(self) -> None:
        self.tick = 0
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Something changed."""
        self.tick += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, tick: int, timeout: float) -> None:
        """Return when there has been a ring since `tick`, or after `timeout` seconds."""
        if self.tick == tick:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), timeout)
