"""The critic's loss. Owns the formula; does not own the critic, nor the returns (`advantages.gae`).

With V the value of a loss token's context now, V_0 the one at batch time, R the return and n the normaliser's weight of the token:

    loss = sum_t n_t 1/2 max((V - R)^2, (V_0 + clip(V - V_0, -c, c) - R)^2)

without a clip c the second term is not there.
"""

import torch
from torch import Tensor

from asyncppo_runtime.algorithm.losses import Normalizer


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    loss_mask: Tensor,
    normalizer: Normalizer,
    clip: float | None = None,
) -> Tensor:
    """Scalar with gradient, normalised. All [B, T] float, loss_mask bool; values carry the gradient."""
    returns, old_values = returns.detach(), old_values.detach()
    worst = (values - returns) ** 2
    if clip is not None:
        held = (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2
        worst = torch.maximum(worst, held)
    weights = normalizer.weights(loss_mask, values.dtype)
    return 0.5 * (weights * torch.where(loss_mask, worst, 0.0)).sum()


def explained_variance(values: Tensor, returns: Tensor, loss_mask: Tensor) -> float:
    """1 - var(R - V)/var(R) over loss tokens: 1 is a perfect critic, 0 no better than a constant; 0 where R does not vary."""
    returns, values = returns[loss_mask].double(), values[loss_mask].double()
    if returns.numel() < 2 or float(returns.var()) == 0.0:
        return 0.0
    return 1.0 - float((returns - values).var() / returns.var())
