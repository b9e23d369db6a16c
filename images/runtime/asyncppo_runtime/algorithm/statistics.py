"""What a step says of itself, as sums that add up over micro-batches and ranks.

Owns the sums and what each means under which kind of old log-prob. Does not own the means they end as (`learner.conversion`), names and
units that leave the process (`asyncppo.report.measures`), nor rewards, gradients and times.

All over loss tokens. d = old - behavior log-prob, where old is the exact value or the strategy's anchor.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from asyncppo_runtime.algorithm.audit import AuditSums
from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.algorithm.discrepancy import Correction
from asyncppo_runtime.algorithm.losses import LossOutput
from asyncppo_runtime.algorithm.moments import RatioSums
from asyncppo_runtime.algorithm.ratios import log_ratio

Histogram = Mapping[int, int]


@dataclass(frozen=True)
class DiscrepancySums:
    """Sums of d over tokens. k3: of e^d - d - 1. by_staleness: staleness → (tokens, sum of |d|)."""

    tokens: int = 0
    k3: float = 0.0
    max_abs: float = 0.0
    by_staleness: Mapping[int, tuple[int, float]] = field(default_factory=dict)

    def __add__(self, other: "DiscrepancySums") -> "DiscrepancySums":
        """The sums over both parts."""
        return DiscrepancySums(**_added(self, other))


@dataclass(frozen=True)
class StepSums:
    """Sums over a part of a step's batch; `a + b` is the sum over both.

    From the batch alone (`batch_sums`): trajectories, tokens, exact_tokens (scored by the version that sampled them), staleness
    (per token) and, per trajectory, oldest_staleness (train version minus its oldest).
    From the loss (`loss_sums`), over the tokens that took a forward (`measured`): the rest. loss, entropy, kl and value_loss are
    normalised already and simply add up. audit: of the audited tokens. active, masked, clipped, masked_and_clipped: quadrants.

    Under a proxy discrepancy, staleness_ratio and the quadrants mix engine mismatch and policy movement: with Recompute clips near 0 are
    an artefact and the discrepancy grows with staleness (its slope shows the mixing). The rest holds whatever the old log-probs are.
    """

    trajectories: int = 0
    tokens: int = 0
    exact_tokens: int = 0
    staleness: Histogram = field(default_factory=dict)
    oldest_staleness: Histogram = field(default_factory=dict)
    loss: float = 0.0
    entropy: float = 0.0
    kl: float = 0.0
    value_loss: float = 0.0
    measured: int = 0
    discrepancy: DiscrepancySums = field(default_factory=DiscrepancySums)
    staleness_ratio: RatioSums = field(default_factory=RatioSums)
    policy_ratio: RatioSums = field(default_factory=RatioSums)
    active: int = 0
    masked: int = 0
    clipped: int = 0
    masked_and_clipped: int = 0
    audit: AuditSums = field(default_factory=AuditSums)

    @classmethod
    def zero(cls) -> "StepSums":
        """The sums over nothing."""
        return cls()

    def __add__(self, other: "StepSums") -> "StepSums":
        """The sums over both parts."""
        return StepSums(**_added(self, other))


def batch_sums(batch: TokenBatch) -> StepSums:
    """What is known before any forward: counts, coverage and staleness of a whole batch or a part of it."""
    mask = batch.loss_mask
    has = mask.any(-1)
    top = torch.iinfo(torch.int64).max
    oldest = torch.where(mask, batch.policy_version, top).amin(-1)[has]
    return StepSums(
        trajectories=batch.token_ids.shape[0],
        tokens=batch.loss_tokens,
        exact_tokens=int((mask & (batch.old_version_used == batch.policy_version)).sum()),
        staleness=_histogram(batch.staleness[mask]),
        oldest_staleness=_histogram(batch.train_version - oldest),
    )


def discrepancy_sums(batch: TokenBatch, anchor_logprobs: Tensor) -> DiscrepancySums:
    """Sums of d = anchor - behavior over the batch's loss tokens. anchor_logprobs: [B, T], exact old log-probs or the proxy."""
    mask = batch.loss_mask
    log = log_ratio(anchor_logprobs.detach(), batch.behavior_logprobs, mask)
    d = log[mask].double()
    if d.numel() == 0:
        return DiscrepancySums()
    staleness, absolute = batch.staleness[mask], d.abs()
    present = torch.unique(staleness)
    limited = d.clamp(-20.0, 20.0)
    return DiscrepancySums(
        tokens=d.numel(),
        k3=float((torch.expm1(limited) - limited).sum()),
        max_abs=float(absolute.max()),
        by_staleness={
            int(lag): (int((staleness == lag).sum()), float(absolute[staleness == lag].sum())) for lag in present
        },
    )


def loss_sums(
    batch: TokenBatch,
    anchor_logprobs: Tensor,
    policy_logprobs: Tensor,
    correction: Correction,
    output: LossOutput,
) -> StepSums:
    """What a (micro-)batch's loss adds: discrepancy of the anchor, ratios, masks and clips. Tensors [B, T], as the loss took them."""
    mask, kept, clipped = batch.loss_mask, correction.mask, output.clipped
    dropped = mask & ~kept
    return StepSums(
        loss=float(output.loss.detach()),
        entropy=float(output.entropy),
        kl=float(output.kl),
        measured=int(mask.sum()),
        discrepancy=discrepancy_sums(batch, anchor_logprobs),
        staleness_ratio=RatioSums.of(output.log_staleness_ratio, mask),
        policy_ratio=RatioSums.of(log_ratio(policy_logprobs.detach(), batch.behavior_logprobs, mask), mask),
        active=int((kept & ~clipped).sum()),
        masked=int((dropped & ~clipped).sum()),
        clipped=int((kept & clipped).sum()),
        masked_and_clipped=int((dropped & clipped).sum()),
    )


def _histogram(values: Tensor) -> Histogram:
    found, counts = torch.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}


def _added(left: Any, right: Any) -> dict[str, Any]:
    """Field by field: numbers and sums add up, histograms merge, extremes (max_*) take the larger."""
    result: dict[str, Any] = {}
    for each in fields(left):
        a, b = getattr(left, each.name), getattr(right, each.name)
        if each.name == "by_staleness":
            merged = dict(a)
            for lag, (tokens, total) in b.items():
                seen = merged.get(lag, (0, 0.0))
                merged[lag] = (seen[0] + tokens, seen[1] + total)
            result[each.name] = merged
        elif isinstance(a, Mapping):
            result[each.name] = dict(Counter(a) + Counter(b))
        elif each.name.startswith("max_"):
            result[each.name] = max(a, b)
        else:
            result[each.name] = a + b
    return result
