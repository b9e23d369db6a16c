"""The step's sums and the metrics made of them: against plain definitions, and adding up whatever the split."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import control, loss_inputs, random_batch, row, trajectory

from asyncppo.api.training import DiscrepancyControl, Normalization
from asyncppo_runtime.algorithm.batch import build_batch, micro_batches
from asyncppo_runtime.algorithm.losses import LossSettings, Normalizer, policy_loss
from asyncppo_runtime.algorithm.moments import RatioSums
from asyncppo_runtime.algorithm.statistics import StepSums, batch_sums, discrepancy_sums, loss_sums
from asyncppo_runtime.learner.conversion import update_metrics
from asyncppo_runtime.learner.progress import weighted_slope

SPEC = control(DiscrepancyControl.TOKEN_MASK, bound=1.15, cap=1.1)


def sums_of(batch, policy, normalizer):
    inputs = loss_inputs(policy, batch.old_logprobs, batch.behavior_logprobs, batch.advantages, batch.loss_mask, SPEC)
    out = policy_loss(LossSettings(), inputs, normalizer)
    measured = loss_sums(batch, batch.old_logprobs, policy, inputs.correction, out)
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
    batch = dataclasses.replace(
        batch, group=torch.tensor([0, 0, 1, 1, 2, 2]), rewards=torch.tensor([1.0, 1, 0, 1, 0.5, 0]).double()
    )
    normalizer = Normalizer.of(Normalization.TOKEN_MEAN, batch.loss_mask)
    idle = torch.tensor([True, True, False, False, False, False])
    figures = update_metrics(batch, idle, sums_of(batch, policy, normalizer), explained_variance=0.25)
    mask = batch.loss_mask
    d = (batch.old_logprobs - batch.behavior_logprobs)[mask]
    s = (policy - batch.old_logprobs)[mask].exp()
    r = (policy - batch.behavior_logprobs)[mask].exp()
    a, lag = batch.advantages[mask], batch.staleness[mask]
    assert (figures.update, figures.version) == (0, batch.train_version + 1)
    assert figures.reward == pytest.approx(3.5 / 6)
    assert figures.reward_std == pytest.approx(batch.rewards.std().item())
    assert (figures.groups, figures.zero_variance_groups, figures.trajectories) == (3, 1, 6)
    assert figures.tokens == d.numel()
    assert figures.response_length == pytest.approx(d.numel() / 6)
    assert figures.exact_coverage == 1.0
    assert figures.explained_variance == 0.25
    assert figures.discrepancy.k3 == pytest.approx((d.exp() - 1 - d).mean().item())
    assert figures.discrepancy.max_abs == pytest.approx(d.abs().max().item())
    assert figures.discrepancy.by_staleness.keys() == set(lag.tolist())
    for each, (count, mean) in figures.discrepancy.by_staleness.items():
        assert count == int((lag == each).sum())
        assert mean == pytest.approx(d.abs()[lag == each].mean().item())
    assert figures.staleness.mean == pytest.approx(lag.double().mean().item())
    assert figures.staleness.max == int(lag.max())
    assert figures.staleness_ratio_mean == pytest.approx(s.mean().item())
    assert figures.staleness_ratio_max == pytest.approx(s.max().item())
    assert figures.effective_sample_size == pytest.approx((r.sum() ** 2 / (r.numel() * (r**2).sum())).item())
    clipped = ((a > 0) & (s > 1.2)) | ((a < 0) & (s < 0.8)) | ((a < 0) & (s > 3.0))
    masked = d.abs() > math.log(1.15)
    assert figures.clip_fraction == pytest.approx(clipped.double().mean().item())
    assert figures.mask_fraction == pytest.approx(masked.double().mean().item())
    assert figures.quadrants == {
        "active": int((~masked & ~clipped).sum()),
        "masked": int((masked & ~clipped).sum()),
        "clipped": int((~masked & clipped).sum()),
        "maskedAndClipped": int((masked & clipped).sum()),
    }
    weight = torch.where(masked, 0.0, d.exp().clamp(max=1.1))
    clip_at = torch.where(a > 0, s.clamp(max=1.2), s.clamp(min=0.8, max=3.0))
    assert figures.loss == pytest.approx(-(weight * clip_at * a).mean().item(), rel=1e-6)


def test_staleness_per_token_and_per_trajectory():
    batch = build_batch([trajectory([1, 3]), trajectory([4], segment_tokens=3)], train_version=4)
    figures = update_metrics(batch, torch.zeros(2, dtype=torch.bool), batch_sums(batch))
    assert figures.staleness.histogram == {3: 2, 1: 2, 0: 3}
    assert figures.staleness.mean == pytest.approx(8 / 7)
    assert figures.staleness.max == 3
    assert figures.trajectory_staleness == {3: 1, 0: 1}
    assert figures.staleness_in_flight == {2: 2, 0: 5}
    assert figures.staleness_queued == {1: 4, 0: 3}
    assert figures.exact_coverage == 0.0


def test_discrepancy_slope_is_the_least_squares_line_over_tokens():
    lags = torch.tensor([0, 0, 1, 1, 1, 2, 4, 4, 5], dtype=torch.float64)
    d = torch.tensor([0.1, 0.0, 0.3, 0.1, 0.2, 0.5, 0.2, 0.9, 0.7], dtype=torch.float64)
    grouped = {int(lag): (int((lags == lag).sum()), float(d[lags == lag].mean())) for lag in lags.unique()}
    design = torch.stack([lags, torch.ones_like(lags)], 1)
    expected = torch.linalg.lstsq(design, d[:, None]).solution[0].item()
    assert weighted_slope(grouped) == pytest.approx(expected)
    assert weighted_slope({3: (7, 2.0)}) == 0.0
    assert weighted_slope({}) == 0.0


def test_a_proxy_shows_a_slope_and_exact_values_do_not():
    """Engine noise alone does not grow with staleness; recomputed log-probs add the drift, which does."""
    batch = random_batch(5, trajectories=60)
    g = torch.Generator().manual_seed(5)
    noise = torch.randn(2, *batch.token_ids.shape, generator=g, dtype=torch.float64)
    exact = batch.behavior_logprobs + 0.01 * noise[0]
    recomputed = exact + 0.2 * batch.staleness * noise[1]
    slopes = []
    for anchor in (exact, recomputed):
        sums = StepSums(discrepancy=discrepancy_sums(batch, anchor))
        slopes.append(update_metrics(batch, torch.zeros(60, dtype=torch.bool), sums).discrepancy.slope)
    assert abs(slopes[0]) < 0.002
    assert slopes[1] > 0.05


def test_nothing_measured_is_no_alarm():
    batch = build_batch([trajectory([1])], 1)
    figures = update_metrics(batch, torch.ones(1, dtype=torch.bool), StepSums.zero())
    assert figures.effective_sample_size == figures.staleness_ratio_mean == figures.staleness_ratio_max == 1.0
    assert figures.staleness.mean == figures.clip_fraction == figures.mask_fraction == 0.0


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
@given(st.lists(st.floats(-3, 0), min_size=1, max_size=6))
def test_k3_is_never_negative_and_zero_for_equal_log_probs(logs):
    batch = build_batch([trajectory([1], segment_tokens=len(logs))], 1, torch.float64)
    anchor = batch.behavior_logprobs.clone()
    assert discrepancy_sums(batch, anchor).k3 == 0.0
    anchor[batch.loss_mask] = torch.tensor(logs, dtype=torch.float64)
    assert discrepancy_sums(batch, anchor).k3 >= 0.0
