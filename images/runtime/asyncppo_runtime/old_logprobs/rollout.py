"""Rollout: the engine's log-probs serve as the old ones. Inexact; owns nothing.

The discrepancy ratio is 1 everywhere, so nothing controls the engine's numeric mismatch; it uses up the clip range instead.
"""

from torch import Tensor

from asyncppo.api.correction import Strategy
from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.old_logprobs.interface import OldLogprobStrategy, Timing, Traits


class Rollout(OldLogprobStrategy):
    """pi_prox = mu_old."""

    traits = Traits(Strategy.ROLLOUT, "rollout", Timing.AT_STEP, keeps_versions=False, extra_forwards=False)

    def proximal(self, batch: TokenBatch, policy_logprobs: Tensor) -> Tensor:
        """The behavior log-probs."""
        return batch.behavior_logprobs
