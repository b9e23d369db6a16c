"""The audit: a steady sample, exact values of it, and nothing else touched."""

from pathlib import Path

import pytest
import torch
from tests.unit.algorithm.builders import tiny_model, trajectory
from tests.unit.old_logprobs.builders import FORWARD, Versions
from tests.unit.old_logprobs.builders import settings as strategy_settings

from asyncppo.api.correction import Strategy
from asyncppo_runtime.algorithm.batch import TokenBatch, build_batch
from asyncppo_runtime.learner.auditor import Auditor
from asyncppo_runtime.old_logprobs.registry import make_strategy
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash

LEASES = [11, 12, 13]


def batch() -> TokenBatch:
    return build_batch(
        [trajectory([2, 3, 4], seed=1), trajectory([4], seed=2), trajectory([3, 4], seed=3)], 4, torch.float64
    )


def auditor(fraction: float, strategy: Strategy = Strategy.RECOMPUTE, directory: Path | None = None) -> Auditor:
    return Auditor(fraction, 7, 2, make_strategy(strategy_settings(strategy, max_versions=2)), directory)


def feed(one: Auditor, versions: Versions) -> None:
    for version in sorted(versions.models):
        one.published(version, versions.tensors(version), versions.hash(version))


def test_the_sample_is_steady_and_of_the_fraction() -> None:
    one = auditor(0.3)
    leases = list(range(4000))
    chosen = one.chosen(leases)
    assert torch.equal(chosen, auditor(0.3).chosen(leases))
    assert float(chosen.double().mean()) == pytest.approx(0.3, abs=0.03)
    assert auditor(1.0).chosen(leases).all()


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_truth_is_brute_force_and_the_model_is_untouched(on_disk: bool, tmp_path: Path) -> None:
    versions, whole = Versions.of([1, 2, 3, 4]), batch()
    one = auditor(1.0, directory=tmp_path if on_disk else None)
    feed(one, versions)
    model = tiny_model(9)
    before = tensors_hash(policy_tensors(model))
    truth = one.truth(whole, LEASES, model, FORWARD)
    assert torch.equal(truth.audited, whole.loss_mask)
    torch.testing.assert_close(truth.logprobs.double(), versions.brute_force(whole), rtol=0, atol=1e-9)
    assert tensors_hash(policy_tensors(model)) == before
    assert truth.missing == 0


def test_versions_beyond_the_bound_are_let_go_and_their_trajectories_counted_as_missing() -> None:
    versions, whole = Versions.of([1, 2, 3, 4, 5]), batch()
    one = auditor(1.0)
    feed(one, versions)
    assert one._ring is not None
    assert one._ring.versions() == [3, 4, 5]
    truth = one.truth(whole, LEASES, tiny_model(9), FORWARD)
    assert truth.missing == 1, "the one that holds tokens of version 2"
    assert truth.audited.any(-1).tolist() == [False, True, True]


def test_a_strategy_that_keeps_versions_lends_them() -> None:
    versions, whole = Versions.of([2, 3, 4]), batch()
    strategy = make_strategy(strategy_settings(Strategy.SNAPSHOT, max_versions=2))
    for version in (2, 3, 4):
        strategy.published(version, versions.tensors(version), versions.hash(version))
    one = Auditor(1.0, 7, 2, strategy, None)
    feed(one, versions)  # keeps nothing of its own
    truth = one.truth(whole, LEASES, tiny_model(9), FORWARD)
    torch.testing.assert_close(truth.logprobs.double(), versions.brute_force(whole), rtol=0, atol=1e-9)
