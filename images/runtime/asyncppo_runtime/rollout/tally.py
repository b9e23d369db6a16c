"""What a worker counts, as plain numbers. Owns the totals since its start; `metrics.py` shows them, heartbeats carry some.

Plain attributes because they are touched for every token and turn.
"""

from collections import Counter

from asyncppo_runtime.rollout.holds import Holds


class Tally:
    """Totals since the worker's start. Seconds are summed over episodes, except paused_seconds (the worker's own). holds: what the
    environments' code does to the event loop."""

    def __init__(self) -> None:
        self.sampled_tokens = 0
        self.discarded_tokens: Counter[str] = Counter()
        self.trajectories: Counter[str] = Counter()
        self.sampling_seconds = 0.0
        self.environment_seconds = 0.0
        self.paused_seconds = 0.0
        self.holds = Holds()
        self.loads: Counter[str] = Counter()
        self.pulled_bytes = 0
        self.joins = 0
        self.canary_error = 0.0
