"""Interpolated anchors: published values, limits, and that they only re-parametrise bounds on r."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import random_batch, row, trajectory
from tests.unit.old_logprobs.builders import settings as strategy_settings

from asyncppo.api.correction import Strategy
from asyncppo_runtime.algorithm.batch import build_batch
from asyncppo_runtime.old_logprobs import interpolation as ip
from asyncppo_runtime.old_logprobs.registry import make_strategy

EPS_TIE = 1e-9


def test_published_log_linear_values_of_areal():
    """Behavior -1, -2, -3; current -1.5, -2.5, -3.5; sampled by version 0, trained at 2."""
    alpha = ip.staleness_weight(torch.tensor([[2, 2, 2]]))
    found = ip.log_linear(row(-1.0, -2.0, -3.0), row(-1.5, -2.5, -3.5), alpha)
    assert found[0].tolist() == pytest.approx([-1.25, -2.25, -3.25], abs=1e-12)


def test_weight_by_staleness():
    assert ip.staleness_weight(torch.tensor([0, 1, 2, 4, 8])).tolist() == [0.0, 0.0, 0.5, 0.75, 0.875]


def test_linear_is_the_mean_of_probabilities():
    behavior, policy = row(0.2, 0.7).log(), row(0.6, 0.1).log()
    found = ip.linear(behavior, policy, row(0.25, 0.25)).exp()
    assert found[0].tolist() == pytest.approx([0.75 * 0.2 + 0.25 * 0.6, 0.75 * 0.7 + 0.25 * 0.1])


@pytest.mark.parametrize("anchor", [ip.log_linear, ip.linear])
def test_limits(anchor):
    behavior, policy = row(-1.0, -30.0), row(-2.0, -0.5)
    assert torch.equal(anchor(behavior, policy, row(0.0, 0.0)), behavior)  # as Rollout: r_d = 1
    torch.testing.assert_close(anchor(behavior, policy, row(1.0, 1.0)), policy)  # as Recompute: r_s = 1


@pytest.mark.parametrize("strategy", [Strategy.LOG_LINEAR, Strategy.LINEAR])
def test_the_anchor_follows_each_tokens_staleness_and_is_detached(strategy):
    batch = build_batch([trajectory([4, 6, 7])], 7, torch.float64)
    policy = (batch.behavior_logprobs - 0.4).requires_grad_()
    anchor = make_strategy(strategy_settings(strategy)).proximal(batch, policy)
    assert not anchor.requires_grad
    for t in torch.nonzero(batch.loss_mask[0]).flatten().tolist():
        d = int(batch.staleness[0, t])
        alpha = (d - 1) / d if d else 0.0
        b, p = batch.behavior_logprobs[0, t].item(), policy[0, t].item()
        mixed = (
            b + alpha * (p - b)
            if strategy is Strategy.LOG_LINEAR
            else math.log((1 - alpha) * math.exp(b) + alpha * math.exp(p))
        )
        assert anchor[0, t].item() == pytest.approx(mixed, rel=1e-12)


# --- masks and clips are bounds on r alone: which ones ------------------------------------------------------------------------
@dataclass(frozen=True)
class Bounds:
    """Inclusive bounds on r = pi_theta/mu that say the same as bounds on the decomposed ratios; inf or 0 where a side never binds."""

    lowest: float
    highest: float


def log_linear_clip_bounds(alpha: float, low: float, high: float) -> Bounds:
    """Bounds on r equivalent to low <= r_s <= high: r_s = r^(1 - alpha)."""
    if alpha == 1.0:
        return Bounds(0.0, math.inf)
    return Bounds(low ** (1 / (1 - alpha)), high ** (1 / (1 - alpha)))


def log_linear_mask_bounds(alpha: float, bound: float) -> Bounds:
    """Bounds on r equivalent to 1/bound <= r_d <= bound: r_d = r^alpha."""
    if alpha == 0.0:
        return Bounds(0.0, math.inf)
    return Bounds(bound ** (-1 / alpha), bound ** (1 / alpha))


def linear_clip_bounds(alpha: float, low: float, high: float) -> Bounds:
    """Bounds on r equivalent to low <= r_s <= high: r_s = r/(w + (1 - w) r) with w = 1 - alpha; r_s never reaches 1/alpha."""
    w = 1.0 - alpha
    lowest = low * w / (1.0 - low * alpha)
    highest = high * w / (1.0 - high * alpha) if high * alpha < 1.0 else math.inf
    return Bounds(lowest, highest)


def linear_mask_bounds(alpha: float, bound: float) -> Bounds:
    """Bounds on r equivalent to 1/bound <= r_d <= bound: r_d = w + (1 - w) r with w = 1 - alpha."""
    if alpha == 0.0:
        return Bounds(0.0, math.inf)
    w = 1.0 - alpha
    return Bounds(max(0.0, (1.0 / bound - w) / alpha), (bound - w) / alpha)


LOW, HIGH, BOUND = 0.8, 1.2, 1.2
KINDS = {
    "loglinear": (ip.log_linear, log_linear_clip_bounds, log_linear_mask_bounds),
    "linear": (ip.linear, linear_clip_bounds, linear_mask_bounds),
}


@settings(max_examples=400)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    alpha=st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 2 / 3, 0.75, 0.875, 0.9, 0.99]),
    log_r=st.floats(-4.0, 4.0),
    low=st.sampled_from([0.7, 0.8, 0.9]),
    high=st.sampled_from([1.1, 1.2, 1.28]),
    bound=st.sampled_from([1.1, 1.2, 2.0, 5.0]),
)
def test_masks_and_clips_are_bounds_on_r(kind, alpha, log_r, low, high, bound):
    mix, clip_bounds, mask_bounds = KINDS[kind]
    behavior = row(-5.0)
    policy = behavior + log_r
    anchor = mix(behavior, policy, row(alpha))
    r, r_s, r_d = (math.exp((a - b).item()) for a, b in ((policy, behavior), (policy, anchor), (anchor, behavior)))
    clip, mask = clip_bounds(alpha, low, high), mask_bounds(alpha, bound)
    for edge in (clip.lowest, clip.highest, mask.lowest, mask.highest):
        assume(abs(r - edge) >= EPS_TIE * max(1.0, r))
    assert (low <= r_s <= high) == (clip.lowest <= r <= clip.highest)
    assert (1 / bound <= r_d <= bound) == (mask.lowest <= r <= mask.highest)


@pytest.mark.parametrize(
    ("d", "clip", "mask_high"),
    [(1, (0.800, 1.200), math.inf), (2, (0.640, 1.440), 1.440), (4, (0.410, 2.074), 1.275), (8, (0.168, 4.300), 1.232)],
)
def test_windows_of_the_log_linear_anchor(d, clip, mask_high):
    alpha = (d - 1) / d
    found = log_linear_clip_bounds(alpha, LOW, HIGH)
    assert (found.lowest, found.highest) == pytest.approx(clip, abs=1e-3)
    assert log_linear_mask_bounds(alpha, BOUND).highest == pytest.approx(mask_high, abs=1e-3)
    if d > 2:  # the clip is dead: the mask window lies strictly inside it
        mask = log_linear_mask_bounds(alpha, BOUND)
        assert found.lowest < mask.lowest
        assert mask.highest < found.highest


@pytest.mark.parametrize(
    ("w", "clip", "mask"),
    [
        (0.10, (0.286, math.inf), (0.815, 1.222)),
        (0.25, (0.500, 3.000), (0.778, 1.267)),
        (0.50, (0.667, 1.500), (0.667, 1.400)),
        (0.75, (0.750, 1.286), (0.333, 1.800)),
    ],
)
def test_windows_of_the_linear_anchor(w, clip, mask):
    found, bounds = linear_clip_bounds(1 - w, LOW, HIGH), linear_mask_bounds(1 - w, BOUND)
    assert (found.lowest, found.highest) == pytest.approx(clip, abs=1e-3)
    assert (bounds.lowest, bounds.highest) == pytest.approx(mask, abs=1e-3)


def test_the_linear_upper_clip_is_dead_for_small_weights_on_the_engine():
    edge = 0.2 / 1.2  # eps/(1 + eps)
    assert linear_clip_bounds(1 - 0.999 * edge, LOW, HIGH).highest == math.inf
    assert linear_clip_bounds(1 - 1.001 * edge, LOW, HIGH).highest < math.inf


def test_recompute_and_rollout_are_the_two_ends():
    batch = random_batch(1)
    policy = (batch.behavior_logprobs - 0.3).requires_grad_()
    recompute = make_strategy(strategy_settings(Strategy.RECOMPUTE)).proximal(batch, policy)
    rollout = make_strategy(strategy_settings(Strategy.ROLLOUT)).proximal(batch, policy)
    assert torch.equal(recompute, policy.detach())
    assert not recompute.requires_grad
    assert torch.equal(rollout, batch.behavior_logprobs)
