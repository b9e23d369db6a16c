"""What a proxy decides wrongly: its masks and clips against those of the exact old log-probs, on tokens that have both.

Owns the comparison and its counts. Does not own which tokens are audited nor their exact scores.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from asyncppo.api.training import DiscrepancySpec, Normalization
from asyncppo_runtime.algorithm.discrepancy import correct
from asyncppo_runtime.algorithm.losses import LossInputs, LossSettings, Normalizer, policy_loss


@dataclass(frozen=True)
class Decision:
    """bool [B, T] each, loss tokens only: dropped by the discrepancy control, and clipped by the loss."""

    masked: Tensor
    clipped: Tensor


@dataclass(frozen=True)
class AuditSums:
    """Counts over audited loss tokens; they add up. A false mask drops what the exact value keeps, a missed clip keeps what it clips.

    agree: tokens for which mask and clip are both the same. absolute_error: sum of |anchor - exact|.
    """

    tokens: int = 0
    agree: int = 0
    false_mask: int = 0
    missed_mask: int = 0
    false_clip: int = 0
    missed_clip: int = 0
    absolute_error: float = 0.0

    def __add__(self, other: "AuditSums") -> "AuditSums":
        """The counts over both parts."""
        return AuditSums(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


def decide(
    settings: LossSettings,
    discrepancy: DiscrepancySpec,
    anchor_logprobs: Tensor,
    behavior_logprobs: Tensor,
    policy_logprobs: Tensor,
    advantages: Tensor,
    loss_mask: Tensor,
) -> Decision:
    """Whom control and loss would mask and clip with this anchor. All [B, T]."""
    correction = correct(discrepancy, anchor_logprobs, behavior_logprobs, loss_mask)
    inputs = LossInputs(policy_logprobs.detach(), anchor_logprobs, advantages, loss_mask, correction)
    bare = replace(settings, entropy_coefficient=0.0, kl_coefficient=0.0)
    output = policy_loss(bare, inputs, Normalizer(Normalization.TOKEN_MEAN, tokens=1, sequences=1))
    return Decision(masked=loss_mask & ~correction.mask, clipped=output.clipped)


def audit(
    settings: LossSettings,
    discrepancy: DiscrepancySpec,
    anchor_logprobs: Tensor,
    exact_logprobs: Tensor,
    behavior_logprobs: Tensor,
    policy_logprobs: Tensor,
    advantages: Tensor,
    audited: Tensor,
) -> AuditSums:
    """Compare the anchor's decisions with the exact ones. All [B, T]; audited: bool, loss tokens of audited trajectories.

    Sequence-level controls see only the audited tokens, so audit whole trajectories.
    """
    common = (behavior_logprobs, policy_logprobs, advantages, audited)
    proxy = decide(settings, discrepancy, anchor_logprobs, *common)
    exact = decide(settings, discrepancy, exact_logprobs, *common)
    same = (proxy.masked == exact.masked) & (proxy.clipped == exact.clipped) & audited
    error = torch.where(audited, anchor_logprobs.detach() - exact_logprobs, 0.0).abs()
    return AuditSums(
        tokens=int(audited.sum()),
        agree=int(same.sum()),
        false_mask=int((proxy.masked & ~exact.masked).sum()),
        missed_mask=int((exact.masked & ~proxy.masked).sum()),
        false_clip=int((proxy.clipped & ~exact.clipped).sum()),
        missed_clip=int((exact.clipped & ~proxy.clipped).sum()),
        absolute_error=float(error.double().sum()),
    )
