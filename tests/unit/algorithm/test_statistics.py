"""The step's sums: against plain definitions, and adding up whatever the split."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import control, loss_inputs, random_batch, row, trajectory

from asyncppo.api.training import DiscrepancyControl, Normalization
from asyncppo.report.measures import UpdateMetrics
from asyncppo_runtime.algorithm.batch import build_batch, micro_batches
from asyncppo_runtime.algorithm.losses import LossSettings, Normalizer, policy_loss
from asyncppo_runtime.algorithm.moments import RatioSums
from asyncppo_runtime.algorithm.statistics import StepSums, batch_sums, discrepancy_sums, loss_sums
from asyncppo_runtime.algorithm.step_measures import VALIDITY, StepStatistics, finish, slope_by_staleness

SPEC = control(DiscrepancyControl.TOKEN_MASK, bound=1.15, cap=1.1)


def sums_of(batch, policy, normalizer):
    inputs = loss_inputs(policy, batch.old_logprobs, batch.behavior_logprobs, batch.advantages, batch.loss_mask, SPEC)
    out = policy_loss(LossSettings(), inputs, normalizer)
    measured = loss_sums(batch, LossSettings(), batch.old_logprobs, policy, inputs.correction, out)
    return batch_sums(batch) + measured


def prepared(seed, rows=6):
    batch = random_batch(seed, trajectories=rows)
    g = torch.Generator().manual_seed(seed)
    noise = [torch.randn(batch.token_ids.shape, generator=g, dtype=torch.float64) for _ in range(2)]
    old = batch.behavior_logprobs + 0.12 * noise[0]
    return batch.with_old(old, batch.policy_version), old + 0.3 * noise[1]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**5), budget=st.integers(1, 80))
def test_sums_add_up_whatever_the_split(seed, budget):
    batch, policy = prepared(seed)
    normalizer = Normalizer.of(Normalization.TOKEN_MEAN, batch.loss_mask)
    whole = sums_of(batch, policy, normalizer)
    total = StepSums.zero()
    for part in micro_batches(batch, budget):
        total = total + sums_of(part.batch, policy[part.rows, : part.batch.token_ids.shape[1]], normalizer)
    assert_same(total, whole)


def assert_same(found, expected):
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if dataclasses.is_dataclass(b):
            assert_same(a, b)
        elif field.name == "by_staleness":
            assert {k: n for k, (n, _) in a.items()} == {k: n for k, (n, _) in b.items()}
            assert [a[k][1] for k in sorted(a)] == pytest.approx([b[k][1] for k in sorted(b)])
        else:
            assert a == (pytest.approx(b) if isinstance(b, float) else b), field.name


def test_figures_against_plain_definitions():
    batch, policy = prepared(11)
    figures = finish(sums_of(batch, policy, Normalizer.of(Normalization.TOKEN_MEAN, batch.loss_mask)))
    mask = batch.loss_mask
    d = (batch.old_logprobs - batch.behavior_logprobs)[mask]
    s = (policy - batch.old_logprobs)[mask]
    r = (policy - batch.behavior_logprobs)[mask].exp()
    a = batch.advantages[mask]
    assert figures.discrepancy.k3 == pytest.approx((d.exp() - 1 - d).mean().item())
    assert figures.discrepancy.max_abs == pytest.approx(d.abs().max().item())
    assert figures.discrepancy_detail.k1 == pytest.approx(-d.mean().item())
    assert figures.discrepancy_detail.k2 == pytest.approx((d**2).mean().item() / 2)
    assert figures.discrepancy_detail.chi2_token == pytest.approx((2 * d).exp().mean().item() - 1)
    sequence = torch.where(mask, batch.old_logprobs - batch.behavior_logprobs, 0.0).sum(-1)
    assert figures.discrepancy_detail.chi2_sequence == pytest.approx((2 * sequence).exp().mean().item() - 1)
    p_old, p_behavior = batch.old_logprobs[mask].exp(), batch.behavior_logprobs[mask].exp()
    correlation = torch.corrcoef(torch.stack([p_old, p_behavior]))[0, 1].item()
    assert figures.discrepancy_detail.probability_correlation == pytest.approx(correlation)
    assert figures.discrepancy_detail.max_probability_gap == pytest.approx((p_old - p_behavior).abs().max().item())
    assert figures.staleness_ratio.mean == pytest.approx(s.exp().mean().item())
    assert figures.staleness_ratio.std == pytest.approx(s.exp().std(correction=0).item())
    assert figures.staleness_ratio.greatest == pytest.approx(s.exp().max().item())
    assert figures.effective_sample_size == pytest.approx((r.sum() ** 2 / (r.numel() * (r**2).sum())).item())
    high, low = (a > 0) & (s.exp() > 1.2), (a < 0) & (s.exp() < 0.8)
    dual = (a < 0) & (s.exp() > 3.0)
    masked = d.abs() > math.log(1.15)
    count = d.numel()
    assert figures.clip_fractions["high"] == pytest.approx(high.double().mean().item())
    assert figures.clip_fractions["low"] == pytest.approx(low.double().mean().item())
    assert figures.out_of_range_fraction == pytest.approx(((s.exp() > 1.2) | (s.exp() < 0.8)).double().mean().item())
    assert figures.mask_fraction == pytest.approx(masked.double().mean().item())
    assert figures.mask_fractions["high"] == pytest.approx((masked & (d > 0)).double().mean().item())
    assert figures.mask_fractions["low"] == pytest.approx((masked & (d < 0)).double().mean().item())
    assert figures.mask_fractions["capped"] == pytest.approx((~masked & (d.exp() > 1.1)).double().mean().item())
    clipped = high | low | dual
    assert figures.quadrants == {
        "active": int((~masked & ~clipped).sum()),
        "masked": int((masked & ~clipped).sum()),
        "clipped": int((~masked & clipped).sum()),
        "maskedAndClipped": int((masked & clipped).sum()),
    }
    assert figures.active_fraction == pytest.approx(figures.quadrants["active"] / count)
    assert figures.exact_fraction == 1.0
    assert figures.tokens == count


def test_staleness_per_token_and_per_trajectory():
    batch = build_batch([trajectory([1, 3]), trajectory([4], segment_tokens=3)], train_version=4)
    figures = finish(batch_sums(batch))
    assert figures.staleness.histogram == {3: 2, 1: 2, 0: 3}
    assert figures.staleness.mean == pytest.approx(8 / 7)
    assert figures.staleness.max == 3
    assert figures.trajectory_staleness == {3: 1, 0: 1}
    assert figures.end_staleness == {1: 1, 0: 1}
    assert figures.span == {2: 1, 0: 1}
    assert figures.partial_fraction == 0.5
    assert figures.exact_fraction == 0.0


def test_discrepancy_slope_is_the_least_squares_line_over_tokens():
    lags = torch.tensor([0, 0, 1, 1, 1, 2, 4, 4, 5], dtype=torch.float64)
    d = torch.tensor([0.1, 0.0, 0.3, 0.1, 0.2, 0.5, 0.2, 0.9, 0.7], dtype=torch.float64)
    grouped = {int(lag): (int((lags == lag).sum()), float(d[lags == lag].sum())) for lag in lags.unique()}
    design = torch.stack([lags, torch.ones_like(lags)], 1)
    expected = torch.linalg.lstsq(design, d[:, None]).solution[0].item()
    assert slope_by_staleness(grouped) == pytest.approx(expected)
    assert slope_by_staleness({3: (7, 2.0)}) == 0.0
    assert slope_by_staleness({}) == 0.0


def test_a_proxy_shows_a_slope_and_exact_values_do_not():
    """Engine noise alone does not grow with staleness; recomputed log-probs add the drift, which does."""
    batch = random_batch(5, trajectories=60)
    g = torch.Generator().manual_seed(5)
    noise = torch.randn(2, *batch.token_ids.shape, generator=g, dtype=torch.float64)
    exact = batch.behavior_logprobs + 0.01 * noise[0]
    recomputed = exact + 0.2 * batch.staleness * noise[1]
    slopes = [slope_by_staleness(discrepancy_sums(batch, anchor).by_staleness) for anchor in (exact, recomputed)]
    assert abs(slopes[0]) < 0.002
    assert slopes[1] > 0.05


def test_nothing_measured_is_no_alarm():
    figures = finish(StepSums.zero())
    assert figures.active_fraction == 1.0
    assert figures.effective_sample_size == 1.0
    assert figures.staleness.mean == 0.0


def test_effective_sample_size():
    ones = torch.ones(1, 4, dtype=torch.bool)
    assert RatioSums.of(row(0.3, 0.3, 0.3, 0.3), ones).effective_sample_size == pytest.approx(1.0)
    one_hot = row(20.0, -20.0, -20.0, -20.0)
    assert RatioSums.of(one_hot, ones).effective_sample_size == pytest.approx(0.25)
    some = row(0.1, -0.5, 1.0, 0.4)
    assert RatioSums.of(some, ones).effective_sample_size == pytest.approx(
        RatioSums.of(some + 1.7, ones).effective_sample_size
    )


@settings(max_examples=50)
@given(st.lists(st.floats(-1.9, 1.9), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_quantiles_to_a_bins_width(logs, q):
    sums = RatioSums.of(row(*logs), torch.ones(1, len(logs), dtype=torch.bool))
    ordered = sorted(logs)
    rank = max(0, math.ceil(q * len(logs)) - 1)
    assert math.log(sums.quantile(q)) == pytest.approx(ordered[rank], abs=0.011)


@settings(max_examples=50)
@given(st.lists(st.floats(-3, 0), min_size=1, max_size=6))
def test_k3_is_never_negative_and_zero_for_equal_log_probs(logs):
    batch = build_batch([trajectory([1], segment_tokens=len(logs))], 1, torch.float64)
    anchor = batch.behavior_logprobs.clone()
    assert discrepancy_sums(batch, anchor).k3 == 0.0
    anchor[batch.loss_mask] = torch.tensor(logs, dtype=torch.float64)
    assert discrepancy_sums(batch, anchor).k3 >= 0.0


def test_every_figure_says_when_it_is_valid_and_fills_the_metrics():
    counted = {"trajectories", "tokens"}
    assert set(VALIDITY) == {f.name for f in dataclasses.fields(StepStatistics)} - counted
    batch, policy = prepared(2)
    figures = finish(sums_of(batch, policy, Normalizer.of(Normalization.TOKEN_MEAN, batch.loss_mask)))
    metrics = UpdateMetrics(update=1, version=2, at_seconds=0.0, reward=0.5, **figures.update_metrics())
    assert metrics.tokens == batch.loss_tokens
    assert sum(metrics.quadrants.values()) == batch.loss_tokens
