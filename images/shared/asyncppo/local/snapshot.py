"""What the screen shows, as data. Owns the shape and the small calculations of it; does not own any drawing.

`view.py` draws it on a terminal, `plain.py` as lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from asyncppo.local.supervisor import RoleView
from asyncppo.report.measures import LearnerStatus
from asyncppo.report.remarks import failing

SPARKS = "▁▂▃▄▅▆▇█"
SILENCE = 3.0
WAITING = {
    "Batch": "waiting for trajectories",
    "Straggler": "waiting for a straggler: its group would get too old",
    "Training": "training",
    "Scoring": "scoring under the weights that sampled",
    "Sync": "bringing the rollouts to a new version",
    "Nothing": "idle",
}


@dataclass(frozen=True)
class Snapshot:
    """One moment of a local run. silence: seconds since the learner last answered. rewards: one per update so far."""

    job: str
    folder: str
    strategy: str
    exact: bool
    bound: int
    updates: int
    phase: str
    elapsed: float
    status: LearnerStatus | None
    silence: float
    rewards: Sequence[float]
    roles: Sequence[RoleView]

    @property
    def doing(self) -> str:
        """What the run is doing or waiting for, in words."""
        if self.phase != "running":
            return self.phase
        restarting = [role for role in self.roles if role.state == "restarting"]
        if restarting:
            return ", ".join(f"restarting {role.name} ({role.note})" for role in restarting)
        if self.status is None:
            return "starting the roles"
        if self.silence > SILENCE:
            return f"no answer from the learner for {self.silence:.0f} s"
        words = WAITING.get(self.status.waiting_for, self.status.waiting_for)
        if self.status.waiting_for == "Batch" and 0.0 < self.status.batch_progress <= 1.0:
            words += f" ({self.status.batch_progress:.0%} of a batch)"
        if trouble := failing(self.status.failures):
            words += f" · {trouble}"
        return f"{words} · {self.status.message}" if self.status.message else words


def sparkline(values: Sequence[float], width: int) -> str:
    """`values` as at most `width` blocks, oldest first; each block is the mean of its share of them."""
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [len(values) * at // count for at in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high - low < 1e-12:
        return SPARKS[0] * count
    return "".join(SPARKS[round((mean - low) / (high - low) * (len(SPARKS) - 1))] for mean in means)
