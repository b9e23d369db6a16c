"""Which trajectory of a batch stands out, should its loss or gradient turn out not to be finite. Pure; owns that guess and its words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.ledger.records import StoredTrajectory

FAR = 1e3
"""The |advantage| from which a trajectory stands out: whitened ones stay below 100, and plain rewards seldom go beyond."""


@dataclass(frozen=True)
class Extreme:
    """The trajectory of a batch's largest |advantage|, if that is far out; `lease_id` 0: none is."""

    lease_id: int = 0
    reward: float = 0.0
    advantage: float = 0.0

    @property
    def advice(self) -> str:
        """What to look at, and what to do."""
        if not self.lease_id:
            return "No trajectory of its batch stands out: lower optimizer.learningRate, or raise optimizer.precision, in a run of its own"
        return (
            f"The largest advantage of its batch, {self.advantage:g}, is of trajectory {self.lease_id}, whose reward is {self.reward:g}: "
            f"look at it (`asyncppo show FOLDER --trajectory {self.lease_id}`) and mend the environment's reward; or set reward.bound "
            "below it and go on: what waits beyond the bound is discarded at the start"
        )


def most_extreme(batch: TokenBatch, trajectories: Sequence[StoredTrajectory]) -> Extreme:
    """batch: with advantages, one row per trajectory."""
    sizes = torch.where(batch.loss_mask, batch.advantages.abs(), 0.0).amax(-1).tolist()

    def rank(row: int) -> tuple[float, float]:
        # of a group's members, which an outlier pushes out all, the outlier itself
        return (sizes[row] if math.isfinite(sizes[row]) else math.inf, abs(trajectories[row].reward))

    row = max(range(len(sizes)), key=rank)
    if rank(row)[0] <= FAR:
        return Extreme()
    return Extreme(trajectories[row].lease_id, trajectories[row].reward, sizes[row])
