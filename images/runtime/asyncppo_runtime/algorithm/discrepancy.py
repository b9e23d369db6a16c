"""What is done about the discrepancy ratio r_d = pi_old / mu_old: masks and weights, all detached.

Owns the controls, one small function each. Does not own the ratio (`ratios`) nor the loss they enter (`losses`).
Formulas: shared notation of `ratios`; sequences are rows, over their loss tokens; every bound is inclusive.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from asyncppo.api.training import DiscrepancyControl, DiscrepancySpec, DiscrepancyWeight
from asyncppo_runtime.algorithm.errors import CombinationError
from asyncppo_runtime.algorithm.ratios import bounded_exp, log_ratio


@dataclass(frozen=True)
class Correction:
    """mask: bool [B, T], loss tokens that are kept (False outside the loss mask). weight: float [B, T], 0 where not kept.

    log_ratio: float [B, T], log r_d, 0 outside the loss mask.
    """

    mask: Tensor
    weight: Tensor
    log_ratio: Tensor


def correct(spec: DiscrepancySpec, old_logprobs: Tensor, behavior_logprobs: Tensor, loss_mask: Tensor) -> Correction:
    """Apply the control and the weight of `spec`. All [B, T]; old_logprobs is the exact value or the strategy's anchor.

    Weight inside the mask: IcePop r_d; None 1; otherwise min(r_d, cap) with Importance, 1 with MaskOnly.
    Raises CombinationError for a control that is nothing but a weight, with MaskOnly.
    """
    log = log_ratio(old_logprobs.detach(), behavior_logprobs.detach(), loss_mask)
    kept = CONTROLS[spec.control](log, loss_mask, spec) & loss_mask
    ratio = bounded_exp(log)
    if spec.control is DiscrepancyControl.NONE:
        weight = torch.ones_like(ratio)
    elif spec.control is DiscrepancyControl.ICE_POP:
        weight = ratio
    elif spec.weight is DiscrepancyWeight.IMPORTANCE:
        weight = ratio.clamp(max=spec.cap)
    elif spec.control is DiscrepancyControl.TIS:
        raise CombinationError(
            "algorithm.discrepancy: TIS only weights, so MaskOnly would leave no control at all; set weight: Importance, or control: None"
        )
    else:
        weight = torch.ones_like(ratio)
    return Correction(mask=kept, weight=torch.where(kept, weight, 0.0), log_ratio=log)


def token_mask(log: Tensor, loss_mask: Tensor, spec: DiscrepancySpec) -> Tensor:
    """Keep a token iff 1/bound <= r_d <= bound."""
    return log.abs() <= math.log(spec.bound)


def tis(log: Tensor, loss_mask: Tensor, spec: DiscrepancySpec) -> Tensor:
    """Truncated importance sampling: keep every token (its weight is capped)."""
    return loss_mask


def ice_pop(log: Tensor, loss_mask: Tensor, spec: DiscrepancySpec) -> Tensor:
    """IcePop / masked importance sampling: keep a token iff 1/bound <= r_d <= cap, its weight is r_d itself."""
    return (log >= -math.log(spec.bound)) & (log <= math.log(spec.cap))


def sequence_mask(log: Tensor, loss_mask: Tensor, spec: DiscrepancySpec) -> Tensor:
    """Keep a sequence iff 1/bound <= product of its r_d <= bound."""
    return log.sum(-1, keepdim=True).abs().expand_as(log) <= math.log(spec.bound)


def geometric_mask(log: Tensor, loss_mask: Tensor, spec: DiscrepancySpec) -> Tensor:
    """Keep a sequence iff 1/bound <= geometric mean of its r_d <= bound."""
    mean = log.sum(-1, keepdim=True) / loss_mask.sum(-1, keepdim=True).clamp(min=1)
    return mean.abs().expand_as(log) <= math.log(spec.bound)


def veto(log: Tensor, loss_mask: Tensor, spec: DiscrepancySpec) -> Tensor:
    """Keep a sequence iff every one of its tokens has 1/bound <= r_d <= bound; meant for a wide bound such as 1e4."""
    return (log.abs() <= math.log(spec.bound)).all(-1, keepdim=True).expand_as(log)


def no_control(log: Tensor, loss_mask: Tensor, spec: DiscrepancySpec) -> Tensor:
    """Keep everything, at weight 1."""
    return loss_mask


CONTROLS: dict[DiscrepancyControl, Callable[[Tensor, Tensor, DiscrepancySpec], Tensor]] = {
    DiscrepancyControl.TOKEN_MASK: token_mask,
    DiscrepancyControl.TIS: tis,
    DiscrepancyControl.ICE_POP: ice_pop,
    DiscrepancyControl.SEQUENCE_MASK: sequence_mask,
    DiscrepancyControl.GEOMETRIC_MASK: geometric_mask,
    DiscrepancyControl.VETO: veto,
    DiscrepancyControl.NONE: no_control,
}
