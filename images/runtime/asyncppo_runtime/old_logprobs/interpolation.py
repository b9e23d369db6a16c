"""LogLinear (A-3PO) and Linear: an anchor between the engine's and the current policy, weighted by staleness. Inexact; owns formulas only.

With d = staleness of the token and alpha = (d - 1)/d, 0 for d = 0 (A-3PO: the proximal policy is taken to be one version old):

    LogLinear   log pi_prox = log mu + alpha (log pi_theta - log mu)
    Linear          pi_prox = (1 - alpha) mu + alpha pi_theta

Either way masking and clipping only re-parametrise bounds on the single ratio pi_theta/mu; `tests/unit/old_logprobs/test_interpolation.py`
has their formulas.
"""

import torch
from torch import Tensor

from asyncppo.api.correction import Strategy
from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.algorithm.ratios import in_log_precision
from asyncppo_runtime.old_logprobs.interface import OldLogprobStrategy, Timing, Traits


def staleness_weight(staleness: Tensor) -> Tensor:
    """alpha = (d - 1)/d for staleness d ≥ 1, 0 for d = 0; float64, same shape."""
    d = staleness.double()
    return torch.where(d > 0, (d - 1) / d.clamp(min=1), 0.0)


def log_linear(behavior_logprobs: Tensor, policy_logprobs: Tensor, alpha: Tensor) -> Tensor:
    """log mu + alpha (log pi_theta - log mu), detached; all of one shape."""
    behavior, policy = in_log_precision(behavior_logprobs.detach()), in_log_precision(policy_logprobs.detach())
    return behavior + alpha.to(behavior.dtype) * (policy - behavior)


def linear(behavior_logprobs: Tensor, policy_logprobs: Tensor, alpha: Tensor) -> Tensor:
    """log((1 - alpha) mu + alpha pi_theta), detached, computed in log space; all of one shape."""
    behavior, policy = in_log_precision(behavior_logprobs.detach()), in_log_precision(policy_logprobs.detach())
    weight = alpha.to(behavior.dtype)
    return torch.logaddexp(behavior + torch.log1p(-weight), policy + torch.log(weight))


class LogLinear(OldLogprobStrategy):
    """A-3PO's log-linear anchor."""

    traits = Traits(Strategy.LOG_LINEAR, "loglinear", Timing.AT_STEP, keeps_versions=False, extra_forwards=False)

    def proximal(self, batch: TokenBatch, policy_logprobs: Tensor) -> Tensor:
        """Between behavior and policy by each token's staleness."""
        return log_linear(batch.behavior_logprobs, policy_logprobs, staleness_weight(batch.staleness))


class Linear(OldLogprobStrategy):
    """The arithmetic mean of both policies, with the same weight."""

    traits = Traits(Strategy.LINEAR, "linear", Timing.AT_STEP, keeps_versions=False, extra_forwards=False)

    def proximal(self, batch: TokenBatch, policy_logprobs: Tensor) -> Tensor:
        """Between behavior and policy by each token's staleness."""
        return linear(batch.behavior_logprobs, policy_logprobs, staleness_weight(batch.staleness))
