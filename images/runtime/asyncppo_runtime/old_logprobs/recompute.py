"""Recompute: the weights that are being trained serve as the old ones. Inexact; owns nothing.

A step takes one optimizer step, so the policy's own forward at the step's weights *is* the recomputation: no further forward.
The staleness ratio is then 1 everywhere and the clip never acts; the discrepancy ratio holds all of the staleness.
"""

from torch import Tensor

from asyncppo.api.correction import Strategy
from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.old_logprobs.interface import OldLogprobStrategy, Timing, Traits


class Recompute(OldLogprobStrategy):
    """pi_prox = pi_theta at the step's start."""

    traits = Traits(Strategy.RECOMPUTE, "recompute", Timing.AT_STEP, keeps_versions=False, extra_forwards=False)

    def proximal(self, batch: TokenBatch, policy_logprobs: Tensor) -> Tensor:
        """The current log-probs, detached."""
        return policy_logprobs.detach()
