"""The exact strategies agree with each other and with brute force on one asynchronous history; proxies do not."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tests.unit.algorithm.builders import tiny_model, trajectory
from tests.unit.old_logprobs.builders import FORWARD, Versions
from tests.unit.old_logprobs.builders import settings as strategy_settings
from torch import nn

from asyncppo.api.correction import Scoring, Strategy
from asyncppo_runtime.algorithm.batch import NO_VERSION, TokenBatch, build_batch, check_ready
from asyncppo_runtime.algorithm.errors import NotScoredError
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.algorithm.statistics import StepSums
from asyncppo_runtime.old_logprobs.errors import VersionUnavailableError
from asyncppo_runtime.old_logprobs.exact_scorer import prefix_logprobs
from asyncppo_runtime.old_logprobs.gather import gather_versions
from asyncppo_runtime.old_logprobs.registry import STRATEGIES, make_strategy
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore

LAST = 6


def history(dtype=torch.float64):
    versions = Versions.of(list(range(1, LAST + 1)), dtype)
    batch = build_batch(
        [
            trajectory([2, 3, 4, 5, 6], seed=1),
            trajectory([3, 3, 4, 4, 6], seed=2, gap=0),
            trajectory([6, 6], seed=3),
            trajectory([4], seed=4, segment_tokens=5),
        ],
        LAST,
        dtype,
    )
    return versions, batch


def walk(strategy, versions: Versions):
    """The learner's life: a resident model that is really overwritten in place, step by step. Yields (version, model)."""
    resident = tiny_model(0, next(versions.models[1].parameters()).dtype)
    for version in range(1, LAST + 1):
        with torch.no_grad():
            for name, tensor in policy_tensors(resident).items():
                tensor.copy_(versions.tensors(version)[name])
        if version == 1:
            strategy.start(version, policy_tensors(resident))
        else:
            strategy.after_step(policy_tensors(resident), StepSums(measured=1, active=1))
            strategy.published(version, policy_tensors(resident), versions.hash(version))
        yield version, resident


def filled(batch: TokenBatch, own: torch.Tensor, logprobs: torch.Tensor, version: int) -> TokenBatch:
    return batch.with_old(
        torch.where(own, logprobs, batch.old_logprobs), torch.where(own, version, batch.old_version_used)
    )


def interrupted(versions: Versions, batch: TokenBatch, scoring: Scoring) -> TokenBatch:
    """Barrier: tokens of v are scored while v is resident. Overlapped: after the step, from the frozen copy, by another model."""
    strategy = make_strategy(strategy_settings(Strategy.INTERRUPTION, scoring=scoring))
    scratch = tiny_model(5, next(versions.models[1].parameters()).dtype)

    def score(version: int, model: nn.Module) -> None:
        nonlocal batch
        own = batch.loss_mask & (batch.policy_version == version)
        with strategy.hold(version, model) as held:
            logprobs, _ = prefix_logprobs(held.model, batch, own, FORWARD)
        batch = filled(batch, own, logprobs, held.version)

    for version, resident in walk(strategy, versions):
        if scoring is Scoring.OVERLAPPED and version > 1:
            score(version - 1, scratch)
        if scoring is Scoring.BARRIER or version == LAST:
            score(version, resident)
        if version < LAST:
            unscored = batch.policy_version[batch.loss_mask & torch.isnan(batch.old_logprobs)].tolist()
            strategy.before_step(policy_tensors(resident), {v for v in unscored if v <= version})
    return batch


def snapshot(versions: Versions, batch: TokenBatch) -> TokenBatch:
    strategy = make_strategy(strategy_settings(Strategy.SNAPSHOT, retention=LAST))
    resident = None
    for _, model in walk(strategy, versions):
        resident = model
    return gather_versions(batch, lambda v: strategy.hold(v, resident), FORWARD).batch


def dedicated(versions: Versions, batch: TokenBatch, directory: Path) -> TokenBatch:
    """The learner keeps files; another process's model is a cache of one version at a time, fed from them in any order."""
    settings = strategy_settings(Strategy.DEDICATED, retention=LAST)
    strategy = make_strategy(dataclasses.replace(settings, directory=directory))
    for _ in walk(strategy, versions):
        pass
    worker = tiny_model(77, next(versions.models[1].parameters()).dtype)
    for version in reversed(batch.versions()):
        own = batch.loss_mask & (batch.policy_version == version)
        loaded = WeightStore(directory).load(version)
        with torch.no_grad():
            for name, tensor in policy_tensors(worker).items():
                tensor.copy_(loaded[name])
        assert tensors_hash(policy_tensors(worker)) == versions.hash(version)
        logprobs, _ = prefix_logprobs(worker, batch, own, FORWARD)
        batch = filled(batch, own, logprobs, version)
    return batch


def test_exact_strategies_agree_with_brute_force_and_bitwise_with_each_other(tmp_path):
    versions, batch = history()
    expected = versions.brute_force(batch)
    results = {
        "barrier": interrupted(versions, batch, Scoring.BARRIER),
        "overlapped": interrupted(versions, batch, Scoring.OVERLAPPED),
        "snapshot": snapshot(versions, batch),
        "dedicated": dedicated(versions, batch, tmp_path),
    }
    for name, found in results.items():
        check_ready(found, exact=True)
        torch.testing.assert_close(found.old_logprobs, expected, rtol=0, atol=1e-9, msg=name)
        assert torch.equal(found.old_logprobs, results["barrier"].old_logprobs), name


def test_recomputed_log_probs_are_not_the_exact_ones():
    versions, batch = history()
    expected = versions.brute_force(batch)
    with torch.no_grad():
        policy = forward_logprobs(
            versions.models[LAST], batch.token_ids, batch.lengths, FORWARD.temperature, mask=batch.loss_mask
        )
    anchor = make_strategy(strategy_settings(Strategy.RECOMPUTE)).proximal(batch, policy.logprobs)
    stale = batch.loss_mask & (batch.staleness > 0)
    assert ((anchor - expected).abs()[stale] > 1e-6).all()
    fresh = batch.loss_mask & (batch.staleness == 0)
    torch.testing.assert_close(anchor[fresh], expected[fresh], rtol=0, atol=1e-9)


def test_zero_staleness_gives_a_ratio_of_one_across_workers_and_batch_shapes(tmp_path):
    """The learner's padded batch forward against a worker's single prefix forwards of the same version."""
    versions, batch = history()
    now = dataclasses.replace(batch, policy_version=torch.where(batch.loss_mask, LAST, NO_VERSION))
    scored = dedicated(versions, now, tmp_path)
    policy = forward_logprobs(
        versions.models[LAST], now.token_ids, now.lengths, FORWARD.temperature, mask=now.loss_mask
    )
    ratio = (policy.logprobs - scored.old_logprobs)[now.loss_mask].exp()
    assert (ratio - 1).abs().max().item() < 1e-9


def test_one_mislabelled_tag_changes_the_value():
    versions, batch = history()
    good = snapshot(versions, batch).old_logprobs
    tags = batch.policy_version.clone()
    row, position = torch.nonzero(batch.loss_mask & (tags == 4))[0].tolist()
    tags[row, position] = 5
    bad = snapshot(versions, dataclasses.replace(batch, policy_version=tags)).old_logprobs
    assert abs((good - bad)[row, position].item()) > 1e-6


@pytest.mark.parametrize("strategy", [one for one in Strategy if one is not Strategy.AUTO])
def test_every_strategy_of_the_api_is_registered_and_answers(strategy):
    made = make_strategy(strategy_settings(strategy))
    assert isinstance(made, STRATEGIES[strategy])
    assert made.traits.strategy is strategy
    assert made.traits.exact == strategy.exact
    versions, batch = history()
    made.start(LAST, versions.tensors(LAST))
    prepared = made.prepare(batch, versions.models[LAST], FORWARD)
    policy = forward_logprobs(
        versions.models[LAST], batch.token_ids, batch.lengths, FORWARD.temperature, mask=batch.loss_mask
    )
    anchor = made.proximal(prepared, policy.logprobs)
    assert not anchor.requires_grad
    ready = batch.with_old(anchor, prepared.old_version_used)
    if strategy.exact:
        with pytest.raises(NotScoredError):  # an exact strategy invents nothing
            check_ready(ready, exact=True)
    else:
        check_ready(ready, exact=False)
        with pytest.raises(VersionUnavailableError), made.hold(LAST, versions.models[LAST]):
            pass
    made.restore(made.state())
    made.retired(LAST - 1)
    assert made.bytes_held >= 0
    assert all(isinstance(value, float) for value in made.figures().values())


def test_kinds_are_distinct():
    kinds = [each.traits.kind for each in STRATEGIES.values()]
    assert len(set(kinds)) == len(kinds)
