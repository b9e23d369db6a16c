"""The weight average: recurrence, limits, decay, reset rule, and that it is a real anchor."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import random_batch
from tests.unit.old_logprobs.builders import FORWARD, Versions
from tests.unit.old_logprobs.builders import settings as strategy_settings

from asyncppo.api.correction import Strategy
from asyncppo_runtime.algorithm.statistics import StepSums
from asyncppo_runtime.old_logprobs.ewma import Ewma, ResetRule, WeightAverage, staleness_decay
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash


def thetas(count, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return [{"w": torch.randn(5, 3, generator=g, dtype=torch.float64).to(dtype)} for _ in range(count)]


def averaged(sequence, decay):
    average = WeightAverage(sequence[0])
    for theta in sequence[1:]:
        average.update(theta, decay)
    return average


@settings(max_examples=40)
@given(decay=st.floats(0.0, 0.99), count=st.integers(1, 30), seed=st.integers(0, 1000))
def test_recurrence_equals_the_closed_form(decay, count, seed):
    sequence = thetas(count, seed)
    weights = [decay ** (count - 1 - k) if count - 1 - k else 1.0 for k in range(count)]
    closed = sum(w * theta["w"] for w, theta in zip(weights, sequence, strict=True)) / sum(weights)
    average = averaged(sequence, decay)
    torch.testing.assert_close(average.tensors["w"], closed, rtol=0, atol=2e-14)
    assert average.weight == pytest.approx(sum(weights))


def test_decay_zero_is_the_last_version_bitwise_and_decay_near_one_the_mean():
    sequence = thetas(7)
    assert torch.equal(averaged(sequence, 0.0).tensors["w"], sequence[-1]["w"])
    mean = sum(theta["w"] for theta in sequence) / 7
    torch.testing.assert_close(averaged(sequence, 1 - 1e-12).tensors["w"], mean, rtol=0, atol=1e-10)


def test_constant_weights_stay():
    theta = thetas(1)[0]
    found = averaged([theta] * 12, 0.7).tensors["w"]
    torch.testing.assert_close(found, theta["w"], rtol=0, atol=1e-15)


def test_a_reset_is_a_fresh_start():
    sequence = thetas(9)
    average = averaged(sequence[:5], 0.8)
    average.reset(sequence[5])
    for theta in sequence[6:]:
        average.update(theta, 0.8)
    fresh = averaged(sequence[5:], 0.8)
    assert torch.equal(average.tensors["w"], fresh.tensors["w"])
    assert average.weight == fresh.weight


def test_shards_average_as_the_whole():
    sequence = thetas(6)
    whole = averaged(sequence, 0.6).tensors["w"]
    shards = [
        averaged([{"w": theta["w"][rows]} for theta in sequence], 0.6).tensors["w"]
        for rows in (slice(0, 2), slice(2, 5))
    ]
    assert torch.equal(torch.cat(shards), whole)


def test_the_average_is_float32_so_small_steps_are_not_lost():
    """Steps of 1e-4 on weights near 1 vanish in bfloat16 (spacing 2^-7) but not in the average."""
    sequence = [{"w": torch.full((1,), 1.0 + 1e-4 * k)} for k in range(50)]
    low = averaged([{"w": theta["w"].bfloat16()} for theta in sequence], 0.9)
    assert low.tensors["w"].dtype == torch.float32
    found = averaged(sequence, 0.9).tensors["w"]
    assert found.item() == pytest.approx(1.0 + 1e-4 * (49 - 9), abs=1e-4)


@pytest.mark.parametrize(("window", "decay"), [(0, 0.0), (1, 1 / 3), (2, 0.5), (4, 2 / 3), (8, 0.8), (16, 8 / 9)])
def test_decay_from_the_staleness_window_has_its_centre_of_mass_mid_window(window, decay):
    assert staleness_decay(window) == pytest.approx(decay)
    assert decay / (1 - decay) == pytest.approx(window / 2)
    strategy = Ewma(strategy_settings(Strategy.EWMA, max_versions=window))
    assert strategy.decay == pytest.approx(decay)
    assert strategy.figures()["centre_of_mass"] == pytest.approx(window / 2)
    assert Ewma(strategy_settings(Strategy.EWMA, max_versions=window, decay=0.25)).decay == 0.25


def test_warm_up_centres_of_mass():
    """W = 5: the debiased average's centre of mass after 1..5 updates."""
    decay, found = 5 / 7, []
    for updates in range(1, 6):
        weights = [decay**age for age in range(updates + 1)]
        ages = averaged([{"w": torch.tensor([float(k)], dtype=torch.float64)} for k in range(updates + 1)], decay)
        found.append(updates - ages.tensors["w"].item())
        assert found[-1] == pytest.approx(sum(age * w for age, w in enumerate(weights)) / sum(weights))
    assert found == pytest.approx([0.42, 0.78, 1.09, 1.36, 1.58], abs=0.01)


# --- reset rule ------------------------------------------------------------------------------------------------------------
def test_reset_is_strictly_below_the_threshold():
    rule = ResetRule(0.9, cooldown=0)
    assert rule.fires(899, 1000, 1)
    assert not rule.fires(900, 1000, 1)
    assert not rule.fires(9, 10, 1)
    assert not rule.fires(0, 0, 1)


def test_counts_are_summed_over_ranks_not_averaged():
    total = StepSums(measured=10, active=10) + StepSums(measured=100, active=80)
    assert (total.active, total.measured) == (90, 110)
    assert ResetRule(0.9, cooldown=0).fires(total.active, total.measured, 1)
    mean_of_means = (10 / 10 + 80 / 100) / 2
    assert not mean_of_means < 0.9


def test_cooldown_spaces_resets():
    strategy = Ewma(strategy_settings(Strategy.EWMA, max_versions=4))
    sequence = thetas(8)
    strategy.start(0, sequence[0])
    resets = []
    for theta in sequence[1:]:
        strategy.after_step(theta, StepSums(measured=10, active=0))
        resets.append(strategy.resets)
    assert resets == [0, 1, 1, 2, 2, 3, 3]


def test_steps_update_or_reset_and_the_figures_say_so():
    strategy = Ewma(strategy_settings(Strategy.EWMA, max_versions=2))
    sequence = thetas(5)
    strategy.start(0, sequence[0])
    healthy, sick = StepSums(measured=10, active=10), StepSums(measured=10, active=5)
    for theta in sequence[1:4]:
        strategy.after_step(theta, healthy)
    torch.testing.assert_close(strategy.average.tensors["w"], averaged(sequence[:4], 0.5).tensors["w"])
    assert strategy.figures()["distance"] > 0
    strategy.after_step(sequence[4], sick)
    assert torch.equal(strategy.average.tensors["w"], sequence[4]["w"])
    assert strategy.average.weight == 1.0
    assert strategy.figures() == {
        "decay": 0.5, "centre_of_mass": 1.0, "distance": 0.0, "resets": 1.0, "steps_since_reset": 0.0,
    }  # fmt: skip


def test_state_survives_a_checkpoint():
    sequence = thetas(6)
    strategy = Ewma(strategy_settings(Strategy.EWMA))
    strategy.start(0, sequence[0])
    for theta in sequence[1:4]:
        strategy.after_step(theta, StepSums(measured=10, active=10))
    restored = Ewma(strategy_settings(Strategy.EWMA))
    restored.restore({name: tensor.clone() for name, tensor in strategy.state().items()})
    for theta in sequence[4:]:
        for each in (strategy, restored):
            each.after_step(theta, StepSums(measured=10, active=10))
    assert torch.equal(strategy.average.tensors["w"], restored.average.tensors["w"])
    assert strategy.figures() == restored.figures()


def test_an_anchor_that_was_never_started_says_so():
    with pytest.raises(RuntimeError, match="start"):
        Ewma(strategy_settings(Strategy.EWMA)).state()


# --- in a step -------------------------------------------------------------------------------------------------------------
def test_it_scores_with_the_averaged_weights_and_leaves_the_model_alone():
    versions = Versions.of([0, 1, 2])
    strategy = Ewma(strategy_settings(Strategy.EWMA, max_versions=2))
    strategy.start(0, versions.tensors(0))
    for version in (1, 2):
        strategy.after_step(versions.tensors(version), StepSums(measured=1, active=1))
    resident = versions.models[2]
    before = tensors_hash(policy_tensors(resident))
    batch = strategy.prepare(random_batch(3), resident, FORWARD)
    assert tensors_hash(policy_tensors(resident)) == before
    model = copy.deepcopy(resident)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(sum(w * versions.tensors(v)[name] for v, w in ((0, 0.25), (1, 0.5), (2, 1.0))) / 1.75)
    by_hand = Versions(dict.fromkeys(range(7), model)).brute_force(batch)
    torch.testing.assert_close(batch.old_logprobs, by_hand, rtol=0, atol=1e-9)
    assert (batch.old_version_used == -1).all()
    policy = torch.zeros_like(batch.old_logprobs)
    assert torch.equal(strategy.proximal(batch, policy), batch.old_logprobs)  # whatever the micro-batch's policy is
    assert strategy.bytes_held == sum(t.numel() * 8 for t in versions.tensors(0).values())
