"""The gate every episode passes before it samples. Owns who may begin and who is still inside; knows nothing of versions.

A pause closes the gate, asks the engine to stop, and then waits until nobody is inside: only then has the final chunk of every
request been consumed, which is what the rollout acknowledges.
"""

import asyncio


class Gate:
    """Closed at first. `inside` counts the episodes between `enter` and `leave`."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.inside = 0

    @property
    def is_open(self) -> bool:
        """Whether sampling may begin."""
        return self._open.is_set()

    def open(self) -> None:
        """Let everybody in."""
        self._open.set()

    def close(self) -> None:
        """Let nobody in any more; those inside go on."""
        self._open.clear()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        while not self._open.is_set():
            await self._open.wait()

    async def enter(self) -> None:
        """Wait until the gate is open, then be inside; `leave` must follow, whatever happens."""
        while not self._open.is_set():
            await self._open.wait()
        self.inside += 1
        self._empty.clear()

    def leave(self) -> None:
        """No longer inside."""
        self.inside -= 1
        if not self.inside:
            self._empty.set()

    async def drained(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()
