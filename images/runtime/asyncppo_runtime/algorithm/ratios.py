"""The two factors of the importance ratio, in log space.

Owns log-ratios and their bounded exponentials. Does not own what is done with them (`discrepancy`, `losses`).

    policy ratio      r   = pi_theta / mu_old                = r_d * r_s
    discrepancy ratio r_d = pi_old   / mu_old   same weights, two engines; constant in theta
    staleness ratio   r_s = pi_theta / pi_old   same engine, two weights; carries the gradient
"""

import torch
from torch import Tensor

EXPONENT_LIMIT = 20.0


def in_log_precision(logprobs: Tensor) -> Tensor:
    """The same values in at least float32 (float64 stays)."""
    return logprobs if logprobs.dtype == torch.float64 else logprobs.float()


def log_ratio(numerator: Tensor, denominator: Tensor, mask: Tensor) -> Tensor:
    """numerator - denominator (log-probs, any shape) where `mask`, 0 elsewhere; NaN outside the mask does no harm, nor in backward."""
    zero = torch.zeros((), dtype=torch.float32, device=numerator.device)
    high, low = in_log_precision(numerator), in_log_precision(denominator)
    return torch.where(mask, high, zero) - torch.where(mask, low, zero)


def bounded_exp(log_values: Tensor) -> Tensor:
    """exp with the exponent clamped to ±20, so that no ratio overflows float32; there is no gradient beyond the clamp."""
    return in_log_precision(log_values).clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT).exp()
