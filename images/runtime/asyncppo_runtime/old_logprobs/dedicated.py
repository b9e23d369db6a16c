"""Dedicated: old-logit workers score segments beside everything else, at exact versions. Exact.

Owns the strategy's answers on the learner's side. Does not own the queue (`queue`), the workers' program (`old_logit`), nor
the versions' weights: workers are caches, the weight store keeps the only copy until a version is retired.
"""

from asyncppo.api.correction import Strategy
from asyncppo_runtime.old_logprobs.interface import OldLogprobStrategy, Timing, Traits


class Dedicated(OldLogprobStrategy):
    """The learner itself lends nothing; a batch is taken only when all its segments are scored."""

    traits = Traits(Strategy.DEDICATED, "exact_dedicated", Timing.BY_WORKERS, keeps_versions=True, extra_forwards=True)
