"""Tells waiting tasks that something changed. Owns no state of its own: whoever wakes looks again."""

import asyncio
import contextlib


class Notice:
    """`ring()` wakes everybody who waits now. A ring nobody waits for is lost, so look first, then wait with a timeout."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Something changed."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        """Return at the next ring, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout)
