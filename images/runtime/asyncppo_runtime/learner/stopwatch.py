"""Where the learner's time goes: one activity at a time, seconds added up. Owns the sums; the activities' names are the caller's."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds wall seconds to the activity that is going on. `during` nests: the inner activity interrupts the outer."""

    def __init__(self) -> None:
        self._stack = ["Nothing"]
        self._since = time.monotonic()
        self._seconds: dict[str, float] = {}

    @property
    def activity(self) -> str:
        """What is going on now."""
        return self._stack[-1]

    def seconds(self) -> dict[str, float]:
        """Seconds of each activity so far, the present one included."""
        self._settle()
        return dict(self._seconds)

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Count the block as `activity`."""
        self._settle()
        self._stack.append(activity)
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()

    def _settle(self) -> None:
        now = time.monotonic()
        current = self._stack[-1]
        self._seconds[current] = self._seconds.get(current, 0.0) + now - self._since
        self._since = now
