"""What a job's syncs came to: counts by result, fenced rollouts, seconds by phase, and why the newest one did not end well.

Owns the counting, from the coordinator's states as they follow each other. Pure: time is passed in. Does not own the syncs.
"""

from collections import Counter

from asyncppo.metrics.metric import Distribution
from asyncppo.metrics.operator import SYNC_SECONDS
from asyncppo.sync.columns import Phase
from asyncppo.sync.machine import State

OUTSIDE = frozenset({Phase.IDLE, Phase.BEGIN, Phase.OVER})
"""Phases in which no sync of ours is under way."""
LAST = frozenset({Phase.FINISH, Phase.RESUME})
"""Phases after which a sync has done what it is for: every member left is on the new version."""
STUCK_SECONDS = 120.0


class SyncBook:
    """results: ended syncs, `done` or `abandoned`. fenced: rollouts left behind. seconds: phase → durations."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.fenced = 0
        self.seconds: dict[str, Distribution] = {}
        self._state: State | None = None
        self._entered = 0.0
        self._failure = ""

    def turned(self, before: State, after: State, seconds: float, now: float) -> None:
        """The coordinator went from `before` to `after` at `now` (monotonic seconds), `seconds` after it had entered `before`."""
        self._state, self._entered = after, now
        if before.phase in OUTSIDE:
            return
        phase = before.phase.value.lower()
        self.seconds.setdefault(phase, Distribution(SYNC_SECONDS.buckets)).observe(seconds)
        ended = after.phase in OUTSIDE or after.epoch != before.epoch
        if not ended:
            self.fenced += len({m.name for m in before.members} - {m.name for m in after.members})
        elif before.phase in LAST:
            self.results["done"] += 1
            self._failure = ""
        else:
            self.results["abandoned"] += 1
            why = f": {after.note}" if after.note else ""
            self._failure = (
                f"the sync of epoch {before.epoch} was given up in {before.phase.value}{why}; it is tried again"
            )

    def error(self, now: float, patience: float) -> str:
        """Why syncs do not go well; empty when they do. patience: seconds that a phase may take by the job's own limits."""
        state = self._state
        if state is not None and state.phase not in OUTSIDE and now - self._entered > patience + STUCK_SECONDS:
            waiting = f", waiting for {', '.join(sorted(state.waiting))}" if state.waiting else ""
            return f"the sync of epoch {state.epoch} has been in {state.phase.value} for {now - self._entered:.0f} s{waiting}"
        return self._failure
