"""The means a step's sums end as, in the figures that leave the process, and what each of them means.

Owns the division and the wording. Does not own the sums (`statistics`) nor names and units (`asyncppo.report.measures`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asyncppo.report.measures import Discrepancy, Staleness
from asyncppo_runtime.algorithm.moments import RatioSums
from asyncppo_runtime.algorithm.statistics import DiscrepancySums, Histogram, StepSums


class Validity(StrEnum):
    """When a figure means what its name says."""

    ALWAYS = "Always"
    EXACT_ONLY = "ExactOnly"


VALIDITY: Mapping[str, Validity] = {
    "staleness": Validity.ALWAYS,
    "trajectory_staleness": Validity.ALWAYS,
    "end_staleness": Validity.ALWAYS,
    "span": Validity.ALWAYS,
    "partial_fraction": Validity.ALWAYS,
    "exact_fraction": Validity.ALWAYS,
    "loss": Validity.ALWAYS,
    "policy_loss": Validity.ALWAYS,
    "entropy": Validity.ALWAYS,
    "kl": Validity.ALWAYS,
    "policy_ratio": Validity.ALWAYS,
    "effective_sample_size": Validity.ALWAYS,
    "active_fraction": Validity.ALWAYS,
    "quadrants": Validity.ALWAYS,
    "discrepancy": Validity.EXACT_ONLY,
    "discrepancy_detail": Validity.EXACT_ONLY,
    "discrepancy_ratio": Validity.EXACT_ONLY,
    "staleness_ratio": Validity.EXACT_ONLY,
    "clip_fractions": Validity.EXACT_ONLY,
    "clip_fraction": Validity.EXACT_ONLY,
    "out_of_range_fraction": Validity.EXACT_ONLY,
    "mask_fraction": Validity.EXACT_ONLY,
    "mask_fractions": Validity.EXACT_ONLY,
}
"""ExactOnly: under a proxy the figure mixes engine mismatch and policy movement (with recompute, clips near 0 are an artefact and the
discrepancy grows with staleness: its slope shows the mixing). The rest holds whatever the old log-probs are; quadrants and
active_fraction then say what the proxy does, not what is right."""


@dataclass(frozen=True)
class RatioFigures:
    """One ratio over tokens; p01 and p99 to 1 %."""

    mean: float
    std: float
    least: float
    greatest: float
    p01: float
    p99: float


@dataclass(frozen=True)
class DiscrepancyDetail:
    """Further figures of d = old - behavior.

    k1 = mean(-d), k2 = mean(d²/2), mean_abs = mean |d|; of probabilities: mean and largest |p_old - p_behavior| and their Pearson
    correlation; chi2_token = mean(r_d²) - 1; chi2_sequence = mean((product of r_d)²) - 1.
    """

    k1: float
    k2: float
    mean_abs: float
    probability_gap: float
    max_probability_gap: float
    probability_correlation: float
    chi2_token: float
    chi2_sequence: float


@dataclass(frozen=True)
class StepStatistics:
    """A step's figures. Fractions are of measured loss tokens; VALIDITY says which need exact old log-probs to mean their name.

    trajectory_staleness: train version minus the trajectory's oldest. end_staleness: minus its newest. span: newest minus oldest.
    partial_fraction: trajectories with span > 0. exact_fraction: trained loss tokens scored by their own version.
    effective_sample_size: (sum r)²/(n sum r²) of r = policy/behavior, unclipped. active_fraction: rho, neither masked nor clipped.
    clip_fractions: high (A > 0), low (A < 0), dual. mask_fractions: low, high (by the token's own r_d), capped, droppedSequences (of
    trajectories).
    """

    trajectories: int
    tokens: int
    loss: float
    policy_loss: float
    entropy: float
    kl: float
    staleness: Staleness
    trajectory_staleness: Histogram
    end_staleness: Histogram
    span: Histogram
    partial_fraction: float
    exact_fraction: float
    discrepancy: Discrepancy
    discrepancy_detail: DiscrepancyDetail
    discrepancy_ratio: RatioFigures
    staleness_ratio: RatioFigures
    policy_ratio: RatioFigures
    effective_sample_size: float
    active_fraction: float
    clip_fraction: float
    clip_fractions: Mapping[str, float]
    out_of_range_fraction: float
    mask_fraction: float
    mask_fractions: Mapping[str, float]
    quadrants: Mapping[str, int]

    def update_metrics(self) -> dict[str, Any]:
        """The fields of `asyncppo.report.measures.UpdateMetrics` that these figures fill, by name."""
        return {
            "trajectories": self.trajectories,
            "tokens": self.tokens,
            "loss": self.loss,
            "entropy": self.entropy,
            "kl": self.kl,
            "staleness": self.staleness,
            "trajectory_staleness": dict(self.trajectory_staleness),
            "discrepancy": self.discrepancy,
            "staleness_ratio_mean": self.staleness_ratio.mean,
            "staleness_ratio_max": self.staleness_ratio.greatest,
            "clip_fraction": self.clip_fraction,
            "mask_fraction": self.mask_fraction,
            "effective_sample_size": self.effective_sample_size,
            "quadrants": dict(self.quadrants),
            "exact_coverage": self.exact_fraction,
        }


def finish(sums: StepSums) -> StepStatistics:
    """The figures of a step from the sums over all its parts (`batch_sums` of the batch plus `loss_sums` of each micro-batch)."""
    measured = max(sums.measured, 1)
    trajectories = max(sum(sums.span.values()), 1)
    return StepStatistics(
        trajectories=sums.trajectories,
        tokens=sums.tokens,
        loss=sums.loss,
        policy_loss=sums.policy_loss,
        entropy=sums.entropy,
        kl=sums.kl,
        staleness=staleness_measure(sums.staleness),
        trajectory_staleness=sums.oldest_staleness,
        end_staleness=sums.end_staleness,
        span=sums.span,
        partial_fraction=sum(n for span, n in sums.span.items() if span > 0) / trajectories,
        exact_fraction=sums.exact_tokens / sums.tokens if sums.tokens else 1.0,
        discrepancy=discrepancy_measure(sums.discrepancy),
        discrepancy_detail=_detail(sums.discrepancy),
        discrepancy_ratio=_figures(sums.discrepancy.ratio),
        staleness_ratio=_figures(sums.staleness_ratio),
        policy_ratio=_figures(sums.policy_ratio),
        effective_sample_size=sums.policy_ratio.effective_sample_size,
        active_fraction=sums.active_fraction,
        clip_fraction=(sums.clipped + sums.masked_and_clipped) / measured,
        clip_fractions={
            "high": sums.clipped_high / measured,
            "low": sums.clipped_low / measured,
            "dual": sums.dual_clipped / measured,
        },
        out_of_range_fraction=sums.out_of_range / measured,
        mask_fraction=(sums.masked + sums.masked_and_clipped) / measured,
        mask_fractions={
            "low": sums.masked_low / measured,
            "high": sums.masked_high / measured,
            "capped": sums.capped / measured,
            "droppedSequences": sums.dropped_sequences / max(sums.discrepancy.sequences, 1),
        },
        quadrants={
            "active": sums.active,
            "masked": sums.masked,
            "clipped": sums.clipped,
            "maskedAndClipped": sums.masked_and_clipped,
        },
    )


def staleness_measure(histogram: Histogram) -> Staleness:
    """Mean and max of a staleness histogram (staleness → tokens)."""
    tokens = sum(histogram.values())
    mean = sum(lag * n for lag, n in histogram.items()) / tokens if tokens else 0.0
    return Staleness(mean=mean, max=max(histogram, default=0), histogram=dict(sorted(histogram.items())))


def discrepancy_measure(sums: DiscrepancySums) -> Discrepancy:
    """k3, largest |d|, mean |d| by staleness and its slope."""
    return Discrepancy(
        k3=sums.k3 / max(sums.tokens, 1),
        max_abs=sums.max_abs,
        slope=slope_by_staleness(sums.by_staleness),
        by_staleness={lag: (n, total / n) for lag, (n, total) in sorted(sums.by_staleness.items())},
    )


def slope_by_staleness(by_staleness: Mapping[int, tuple[int, float]]) -> float:
    """Least-squares slope of |d| against staleness over *tokens*, from staleness → (tokens, sum |d|); 0 with a single staleness."""
    tokens = sum(n for n, _ in by_staleness.values())
    if len(by_staleness) < 2:
        return 0.0
    mean_lag = sum(lag * n for lag, (n, _) in by_staleness.items()) / tokens
    spread = sum(n * (lag - mean_lag) ** 2 for lag, (n, _) in by_staleness.items())
    together = sum((lag - mean_lag) * total for lag, (_, total) in by_staleness.items())
    return together / spread


def _detail(sums: DiscrepancySums) -> DiscrepancyDetail:
    n = max(sums.tokens, 1)
    covariance = sums.probability_ob - sums.probability_o * sums.probability_b / n
    spread_o = max(0.0, sums.probability_oo - sums.probability_o**2 / n)
    spread_b = max(0.0, sums.probability_bb - sums.probability_b**2 / n)
    scale = math.sqrt(spread_o * spread_b)
    return DiscrepancyDetail(
        k1=-sums.signed / n,
        k2=0.5 * sums.squares / n,
        mean_abs=sums.absolute / n,
        probability_gap=sums.probability_gap / n,
        max_probability_gap=sums.max_probability_gap,
        probability_correlation=min(1.0, max(-1.0, covariance / scale)) if scale else 1.0,
        chi2_token=sums.ratio.squares / n - 1.0 if sums.tokens else 0.0,
        chi2_sequence=sums.sequence_squares / sums.sequences - 1.0 if sums.sequences else 0.0,
    )


def _figures(sums: RatioSums) -> RatioFigures:
    return RatioFigures(
        mean=sums.mean,
        std=sums.std,
        least=sums.smallest,
        greatest=sums.largest,
        p01=sums.quantile(0.01),
        p99=sums.quantile(0.99),
    )
