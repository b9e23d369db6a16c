"""Interruption: what is lent when, and the guard before a step."""

import pytest
from tests.unit.algorithm.builders import tiny_model
from tests.unit.old_logprobs.builders import Versions
from tests.unit.old_logprobs.builders import settings as strategy_settings

from asyncppo.api.correction import Scoring, Strategy
from asyncppo_runtime.algorithm.statistics import StepSums
from asyncppo_runtime.old_logprobs.errors import UnscoredTokensError, VersionUnavailableError
from asyncppo_runtime.old_logprobs.interruption import Interruption
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash

VERSIONS = Versions.of([1, 2, 3])


def started(scoring=Scoring.BARRIER):
    strategy = Interruption(strategy_settings(Strategy.INTERRUPTION, scoring=scoring))
    strategy.start(1, VERSIONS.tensors(1))
    return strategy


def step(strategy, version, unscored=()):
    strategy.before_step(VERSIONS.tensors(version - 1), unscored)
    strategy.after_step(VERSIONS.tensors(version), StepSums.zero())
    strategy.published(version, VERSIONS.tensors(version), VERSIONS.hash(version))


def test_the_resident_version_is_the_model_itself():
    strategy, model = started(), VERSIONS.models[1]
    with strategy.hold(1, model) as held:
        assert held.model is model
        assert (held.version, held.train_hash) == (1, VERSIONS.hash(1))
    assert strategy.bytes_held == 0


def test_barrier_refuses_a_step_over_unscored_tokens_of_the_resident_version():
    strategy = started()
    with pytest.raises(UnscoredTokensError, match="version 1 still has unscored tokens"):
        strategy.before_step(VERSIONS.tensors(1), {1})
    with strategy.hold(1, VERSIONS.models[1]):
        pass  # nothing was destroyed
    step(strategy, 2)


def test_barrier_has_no_older_version():
    strategy = started()
    step(strategy, 2)
    with pytest.raises(VersionUnavailableError, match="version 1 is not resident"), strategy.hold(1, tiny_model()):
        pass


def test_a_second_step_before_the_publication_is_refused():
    """Several optimizer steps per publication: the first has destroyed the weights of every token sampled meanwhile."""
    strategy = started()
    strategy.before_step(VERSIONS.tensors(1), ())
    strategy.after_step(VERSIONS.tensors(2), StepSums.zero())
    with pytest.raises(UnscoredTokensError, match="exactly one optimizer step per version"):
        strategy.before_step(VERSIONS.tensors(2), ())
    with pytest.raises(VersionUnavailableError, match="a step is under way"), strategy.hold(1, tiny_model()):
        pass


def test_overlapped_scores_the_older_version_from_its_frozen_copy():
    strategy = started(Scoring.OVERLAPPED)
    step(strategy, 2, unscored={1})
    scratch = tiny_model(9)
    before = tensors_hash(policy_tensors(scratch))
    with strategy.hold(1, scratch) as held:
        assert (held.version, held.train_hash) == (1, VERSIONS.hash(1))
        assert tensors_hash(policy_tensors(scratch)) == VERSIONS.hash(1)
    assert tensors_hash(policy_tensors(scratch)) == before
    assert strategy.bytes_held == sum(t.numel() * 8 for t in VERSIONS.tensors(1).values())
    with strategy.hold(2, VERSIONS.models[2]) as held:
        assert held.train_hash == VERSIONS.hash(2)


def test_overlapped_waits_while_the_copy_is_busy():
    strategy = started(Scoring.OVERLAPPED)
    step(strategy, 2, unscored={1})
    with pytest.raises(UnscoredTokensError, match="version 1"):
        strategy.before_step(VERSIONS.tensors(2), {1, 2})
    with strategy.hold(1, tiny_model()) as held:
        assert held.version == 1  # the copy is still there
    step(strategy, 3, unscored={2})
    with strategy.hold(2, tiny_model()) as held:
        assert held.train_hash == VERSIONS.hash(2)
    strategy.retired(2)
    assert strategy.bytes_held == 0
    with pytest.raises(VersionUnavailableError), strategy.hold(2, tiny_model()):
        pass


def test_overlapped_keeps_the_copy_over_a_restart():
    before = started(Scoring.OVERLAPPED)
    assert before.state() == {}
    step(before, 2, unscored={1})
    after = Interruption(strategy_settings(Strategy.INTERRUPTION, scoring=Scoring.OVERLAPPED))
    after.restore(before.state())
    after.published(2, VERSIONS.tensors(2), VERSIONS.hash(2))
    for version, model in ((1, tiny_model(9)), (2, VERSIONS.models[2])):
        with after.hold(version, model) as held:
            assert (held.version, held.train_hash) == (version, VERSIONS.hash(version))
    with pytest.raises(UnscoredTokensError, match="version 1"):
        after.before_step(VERSIONS.tensors(2), {1})


def test_overlapped_weights_that_are_published_anew_still_serve_their_old_number():
    strategy = started(Scoring.OVERLAPPED)
    strategy.published(1, VERSIONS.tensors(1), VERSIONS.hash(1))
    assert strategy.bytes_held == 0
    strategy.published(5, VERSIONS.tensors(1), VERSIONS.hash(1))
    for version in (1, 5):
        with strategy.hold(version, tiny_model(1)) as held:
            assert (held.version, held.train_hash) == (version, VERSIONS.hash(1))
