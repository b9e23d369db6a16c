"""Dedicated: old-logit workers score segments beside everything else, at exact versions. Exact.

Owns the strategy's answers on the learner's side, where the versions' train-side weights are kept until nobody needs them. Does not
own the queue (`queue`), the workers' program (`old_logit`), nor who talks to them (`learner.scoring_desk`): workers are caches.
"""

from asyncppo.api.correction import Strategy
from asyncppo_runtime.old_logprobs.interface import StrategySettings, Timing, Traits
from asyncppo_runtime.old_logprobs.ring import DiskMedium
from asyncppo_runtime.old_logprobs.snapshot import Snapshot
from asyncppo_runtime.weights.store import WeightStore


class Dedicated(Snapshot):
    """Keeps each version as a file (in memory without a directory), from where workers pull it."""

    traits = Traits(Strategy.DEDICATED, "exact_dedicated", Timing.BY_WORKERS, keeps_versions=True, extra_forwards=True)

    def __init__(self, settings: StrategySettings) -> None:
        directory = settings.directory
        super().__init__(settings, DiskMedium(WeightStore(directory)) if directory is not None else None)
