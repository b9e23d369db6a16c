"""Advantages against their definitions in plain Python."""

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncppo.api.training import Advantage
from asyncppo_runtime.algorithm.advantages import (
    dr_grpo,
    estimate,
    gae,
    grpo,
    reinforce_plus_plus,
    rloo,
    terminal_rewards,
    whiten,
    zero_variance,
)

REWARDS = torch.tensor([1.0, 0.0, 0.5, 2.0, 7.0], dtype=torch.float64)
GROUP = torch.tensor([4, 9, 4, 4, 1])


def members(rewards, group, row):
    return [r for r, g in zip(rewards.tolist(), group.tolist(), strict=True) if g == group[row].item()]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=1, max_size=12))
def test_group_estimators_match_their_definitions(pairs):
    rewards = torch.tensor([r for r, _ in pairs], dtype=torch.float64)
    group = torch.tensor([g for _, g in pairs])
    for row, reward in enumerate(rewards.tolist()):
        own = members(rewards, group, row)
        if len(own) == 1:
            expected = (reward, reward, reward)
        else:
            mean = statistics.fmean(own)
            others = (sum(own) - reward) / (len(own) - 1)
            expected = ((reward - mean) / (statistics.stdev(own) + 1e-6), reward - mean, reward - others)
        found = (grpo(rewards, group)[row], dr_grpo(rewards, group)[row], rloo(rewards, group)[row])
        assert [f.item() for f in found] == pytest.approx(list(expected), rel=1e-6, abs=1e-6)


def test_zero_variance_groups():
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, 3.0])
    group = torch.tensor([0, 0, 1, 1, 2])
    assert zero_variance(rewards, group).tolist() == [True, True, False, False, False]
    assert grpo(rewards, group)[:2].tolist() == [0.0, 0.0]


def test_estimates_are_spread_over_loss_tokens():
    mask = torch.tensor([[False, True, True], [False, False, True]] * 2 + [[True, False, False]])
    for kind in (Advantage.GRPO, Advantage.DR_GRPO, Advantage.RLOO):
        out = estimate(kind, REWARDS, GROUP, mask)
        assert out[~mask].abs().sum() == 0
        assert out[0, 1] == out[0, 2] != 0


def test_reinforce_plus_plus_whitens_over_all_loss_tokens():
    mask = torch.tensor([[False, True, True, False, True], [True, False, False, False, False]])
    rewards = torch.tensor([2.0, -1.0], dtype=torch.float64)
    returns = [0.25 * 2.0, 0.5 * 2.0, 2.0, -1.0]
    mean, std = statistics.fmean(returns), statistics.stdev(returns)
    out = reinforce_plus_plus(rewards, mask, discount=0.5)
    assert out[mask].tolist() == pytest.approx([(r - mean) / (std + 1e-6) for r in returns])
    assert out[~mask].abs().sum() == 0


@settings(max_examples=150)
@given(
    reward=st.floats(-1e6, 1e6, width=32),
    size=st.integers(2, 9),
    tokens=st.integers(1, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    kind=st.sampled_from([k for k in Advantage if k is not Advantage.GAE]),
)
def test_equal_rewards_have_exactly_no_advantage(reward, size, tokens, dtype, kind):
    """Not rounding over the spread's floor: 0, to the last bit. With REINFORCE++ the batch is the group."""
    out = estimate(
        kind,
        torch.full((size,), reward, dtype=dtype),
        torch.zeros(size, dtype=torch.int64),
        torch.ones(size, tokens, dtype=torch.bool),
    )
    assert not out.any()


def test_equal_entries_whiten_to_exactly_zero():
    values = torch.full((3, 5), 0.1)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    assert not whiten(torch.where(mask, values, 9.0), mask).any()


def test_reinforce_plus_plus_compares_with_the_batch_not_with_the_group():
    rewards = torch.tensor([1.0, 1.0, 0.0, 0.0])
    out = estimate(
        Advantage.REINFORCE_PLUS_PLUS, rewards, torch.tensor([0, 0, 1, 1]), torch.ones(4, 1, dtype=torch.bool)
    )
    assert out[:, 0].tolist() == pytest.approx([0.5**0.5 * 1.5**0.5] * 2 + [-(0.5**0.5) * 1.5**0.5] * 2, rel=1e-5)


def test_rloo_of_float64_rewards_is_float64():
    rewards = torch.tensor([0.1, 0.7, 0.9, 0.2], dtype=torch.float64)
    expected = [r - (1.9 - r) / 3 for r in rewards.tolist()]
    assert rloo(rewards, torch.zeros(4, dtype=torch.int64)).tolist() == pytest.approx(expected, rel=1e-14, abs=1e-15)


def test_whitening_one_value_leaves_it():
    mask = torch.tensor([[True, False]])
    assert whiten(torch.tensor([[3.0, 9.0]]), mask).tolist() == [[3.0, 0.0]]


def test_terminal_rewards_fall_on_the_last_loss_token():
    mask = torch.tensor([[False, True, True, False], [False, False, False, False]])
    assert terminal_rewards(torch.tensor([5.0, 7.0]), mask).tolist() == [[0.0, 0.0, 5.0, 0.0], [0.0] * 4]


def gae_reference(rewards, values, mask, discount, lam):
    """Over the loss tokens alone, as if the environment's tokens were not there."""
    out = torch.zeros_like(values)
    for i in range(values.shape[0]):
        own = torch.nonzero(mask[i]).flatten().tolist()
        earned = dict.fromkeys(own, 0.0)
        for t in range(values.shape[1]):
            before = [o for o in own if o <= t]
            if before:
                earned[before[-1]] += float(rewards[i, t])
        carried = 0.0
        for k in range(len(own) - 1, -1, -1):
            following = float(values[i, own[k + 1]]) if k + 1 < len(own) else 0.0
            carried = earned[own[k]] + discount * following - float(values[i, own[k]]) + discount * lam * carried
            out[i, own[k]] = carried
    return out


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), discount=st.floats(0.5, 1.0), lam=st.floats(0.0, 1.0))
def test_gae_steps_over_environment_tokens(seed, discount, lam):
    g = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(3, 7, generator=g, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(3, 7, generator=g) < 0.6
    found = gae(rewards, values, mask, discount, lam)
    expected = gae_reference(rewards, values, mask, discount, lam)
    torch.testing.assert_close(found.advantages, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.returns, torch.where(mask, expected + values, 0.0), rtol=1e-10, atol=1e-12)


def test_gae_with_lambda_one_is_return_minus_value():
    mask = torch.tensor([[False, True, True, False, True]])
    values = torch.tensor([[9.0, 0.3, 0.2, 9.0, 0.1]], dtype=torch.float64)
    out = estimate(Advantage.GAE, torch.tensor([2.0], dtype=torch.float64), torch.tensor([0]), mask, values=values)
    assert out[mask].tolist() == pytest.approx([1.7, 1.8, 1.9])


def test_gae_without_values_is_refused():
    with pytest.raises(ValueError, match="critic"):
        estimate(Advantage.GAE, REWARDS, GROUP, torch.ones(5, 2, dtype=torch.bool))


@pytest.mark.parametrize("kind", [k for k in Advantage if k is not Advantage.GAE])
def test_every_estimator_has_an_estimate(kind):
    assert estimate(kind, REWARDS, GROUP, torch.ones(5, 3, dtype=torch.bool)).isfinite().all()
