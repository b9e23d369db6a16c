"""The critic's loss: dataclass in, dataclass out. Owns the formula; does not own the critic, nor the returns (`advantages.gae`).

With V the value of a loss token's context now, V_0 the one at batch time, R the return and n the normaliser's weight of the token:

    loss = sum_t n_t 1/2 max((V - R)^2, (V_0 + clip(V - V_0, -c, c) - R)^2)

without a clip c the second term is not there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from asyncppo_runtime.algorithm.losses import Normalizer


@dataclass(frozen=True)
class ValueOutput:
    """loss: scalar with gradient, normalised. squared_error, clipped: sums over loss tokens of (V - R)^2 and of tokens whose value
    gets no gradient."""

    loss: Tensor
    squared_error: float
    clipped: int


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    loss_mask: Tensor,
    normalizer: Normalizer,
    clip: float | None = None,
) -> ValueOutput:
    """All [B, T] float, loss_mask bool. values carry the gradient."""
    returns, old_values = returns.detach(), old_values.detach()
    plain = (values - returns) ** 2
    worst, cut = plain, torch.zeros_like(loss_mask)
    if clip is not None:
        held = (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2
        worst = torch.maximum(plain, held)
        cut = loss_mask & (held > plain)
    weights = normalizer.weights(loss_mask, values.dtype)
    loss = 0.5 * (weights * torch.where(loss_mask, worst, 0.0)).sum()
    return ValueOutput(loss, float(plain.detach()[loss_mask].double().sum()), int(cut.sum()))


def explained_variance(values: Tensor, returns: Tensor, loss_mask: Tensor) -> float:
    """1 - var(R - V)/var(R) over loss tokens: 1 is a perfect critic, 0 no better than a constant; 0 where R does not vary."""
    returns, values = returns[loss_mask].double(), values[loss_mask].double()
    if returns.numel() < 2 or float(returns.var()) == 0.0:
        return 0.0
    return 1.0 - float((returns - values).var() / returns.var())
