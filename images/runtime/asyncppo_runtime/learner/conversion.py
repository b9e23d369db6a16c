"""From what the ledger stores to what the algorithm takes, and from its sums to the update's metrics. Pure; owns no field."""

from collections.abc import Sequence

import torch

from asyncppo.report.measures import Audit, Discrepancy, Staleness, UpdateMetrics
from asyncppo_runtime.algorithm.audit import AuditSums
from asyncppo_runtime.algorithm.batch import NO_VERSION, SegmentInput, TokenBatch, TrajectoryInput
from asyncppo_runtime.algorithm.statistics import StepSums
from asyncppo_runtime.learner.progress import weighted_slope
from asyncppo_runtime.ledger.records import Score, SegmentState, StoredTrajectory


def trajectory_inputs(groups: Sequence[Sequence[StoredTrajectory]]) -> list[TrajectoryInput]:
    """One TrajectoryInput per trajectory, group by group. Discarded segments have no place in the loss and are left out."""
    inputs = []
    for group in groups:
        for stored in group:
            if stored.trajectory is None:
                raise ValueError(
                    f"trajectory {stored.lease_id} has been pruned; the ledger must not offer it for training"
                )
            segments = [
                SegmentInput(
                    start=segment.start,
                    end=segment.end,
                    version=segment.version,
                    behavior_logprobs=[] if segment.behavior_logprobs is None else segment.behavior_logprobs.tolist(),
                    old_logprobs=None if segment.old_logprobs is None else segment.old_logprobs.tolist(),
                    old_version=segment.scorer_version,
                )
                for segment in stored.segments
                if segment.state is not SegmentState.DISCARDED
            ]
            inputs.append(TrajectoryInput(stored.trajectory.token_ids, segments, stored.reward, stored.group_id))
    return inputs


def proxy_scores(
    groups: Sequence[Sequence[StoredTrajectory]],
    rows: torch.Tensor,
    anchor: torch.Tensor,
    kind: str,
) -> list[Score]:
    """Anchors of a micro-batch as scores: of no version, for a restart reads them back and must not take one for an exact value.

    rows: int64 [b], positions among all trajectories. anchor: [b, T].
    """
    flat = [stored for group in groups for stored in group]
    values = anchor.detach().double().numpy()
    return [
        Score(segment.key, values[place, segment.start : segment.end], NO_VERSION, "", kind)
        for place, row in enumerate(rows.tolist())
        for segment in flat[row].segments
        if segment.state is SegmentState.UNSCORED
    ]


def update_metrics(
    batch: TokenBatch, idle: torch.Tensor, sums: StepSums, explained_variance: float = 0.0
) -> UpdateMetrics:
    """The metrics of one update as far as the batch and its loss know them. idle: bool [B], trajectories of zero-variance groups.

    explained_variance: of the returns by the critic, before this step.

    In-flight staleness of a token runs to its trajectory's newest token, queued staleness from there to this step.
    """
    newest = torch.where(batch.loss_mask, batch.policy_version, -1).amax(-1, keepdim=True)
    in_flight = (newest - batch.policy_version)[batch.loss_mask]
    queued = (batch.train_version - newest).expand_as(batch.policy_version)[batch.loss_mask]
    discrepancy, tokens, measured = sums.discrepancy, max(1, sums.discrepancy.tokens), max(1, sums.measured)
    by_staleness = {lag: (count, total / count) for lag, (count, total) in sorted(discrepancy.by_staleness.items())}
    return UpdateMetrics(
        update=0,
        version=batch.train_version + 1,
        at_seconds=0.0,
        reward=float(batch.rewards.mean()),
        reward_std=float(batch.rewards.std()) if batch.rewards.numel() > 1 else 0.0,
        groups=int(torch.unique(batch.group).numel()),
        zero_variance_groups=int(torch.unique(batch.group[idle]).numel()),
        trajectories=sums.trajectories,
        tokens=sums.tokens,
        loss=sums.loss,
        entropy=sums.entropy,
        kl=sums.kl,
        staleness=Staleness(
            mean=sum(lag * count for lag, count in sums.staleness.items()) / max(1, sums.tokens),
            max=max(sums.staleness, default=0),
            histogram=dict(sums.staleness),
        ),
        trajectory_staleness=dict(sums.oldest_staleness),
        staleness_in_flight=_counts(in_flight),
        staleness_queued=_counts(queued),
        discrepancy=Discrepancy(
            k3=discrepancy.k3 / tokens,
            max_abs=discrepancy.max_abs,
            slope=weighted_slope(by_staleness),
            by_staleness=by_staleness,
        ),
        staleness_ratio_mean=sums.staleness_ratio.mean,
        staleness_ratio_max=sums.staleness_ratio.largest,
        clip_fraction=(sums.clipped + sums.masked_and_clipped) / measured,
        mask_fraction=(sums.masked + sums.masked_and_clipped) / measured,
        effective_sample_size=sums.policy_ratio.effective_sample_size,
        quadrants={
            "active": sums.active,
            "masked": sums.masked,
            "clipped": sums.clipped,
            "maskedAndClipped": sums.masked_and_clipped,
        },
        value_loss=sums.value_loss,
        explained_variance=explained_variance,
        audit=audit_figures(sums.audit),
        exact_coverage=sums.exact_tokens / max(1, sums.tokens),
        response_length=sums.tokens / max(1, sums.trajectories),
        measured_tokens=discrepancy.tokens,
        k3_sum=discrepancy.k3,
        exact_tokens=sums.exact_tokens,
        signal_tokens=int(batch.advantages[batch.loss_mask].count_nonzero()),
    )


def audit_figures(sums: AuditSums) -> Audit:
    """The counts as a measure."""
    return Audit(
        tokens=sums.tokens,
        agree=sums.agree,
        false_masks=sums.false_mask,
        missed_masks=sums.missed_mask,
        false_clips=sums.false_clip,
        missed_clips=sums.missed_clip,
        mean_error=sums.absolute_error / sums.tokens if sums.tokens else 0.0,
    )


def _counts(values: torch.Tensor) -> dict[int, int]:
    found, counts = torch.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(found, counts, strict=True)}
