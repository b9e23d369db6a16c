"""Which trajectory of a batch stands out, should its loss or gradient turn out not to be finite. Pure; owns that guess and its words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.ledger.records import StoredTrajectory

FAR = 1e3
"""How many times the batch's median |advantage| stands out."""


@dataclass(frozen=True)
class Extreme:
    """The trajectory of the largest |advantage| of a batch, if it stands out; `lease_id` 0: none does. usual: the median of the batch."""

    lease_id: int = 0
    reward: float = 0.0
    advantage: float = 0.0
    usual: float = 0.0

    @property
    def advice(self) -> str:
        """What to look at, and what to do."""
        if not self.lease_id:
            return "No trajectory of its batch stands out: lower optimizer.learningRate, or raise optimizer.precision, in a run of its own"
        return (
            f"Trajectory {self.lease_id} of its batch has the reward {self.reward:g} and the advantage {self.advantage:g}, where "
            f"{self.usual:g} is usual: look at it (`asyncppo show FOLDER --trajectory {self.lease_id}`) and mend the environment's reward, "
            "or set reward.bound below it and go on: what is beyond the bound is discarded at the start"
        )


def most_extreme(batch: TokenBatch, trajectories: Sequence[StoredTrajectory]) -> Extreme:
    """batch: with advantages, one row per trajectory."""
    sizes = torch.where(batch.loss_mask, batch.advantages.abs(), 0.0).amax(-1).tolist()
    usual = median(sizes)
    row = max(range(len(sizes)), key=lambda at: math.inf if math.isnan(sizes[at]) else sizes[at])
    far = not math.isfinite(sizes[row]) or sizes[row] > FAR * max(1.0, usual)
    if not far:
        return Extreme()
    return Extreme(trajectories[row].lease_id, trajectories[row].reward, sizes[row], usual)
