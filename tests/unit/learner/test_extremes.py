"""The trajectory that a gradient gone wrong most likely comes from is named; when none stands out, that is said."""

from pathlib import Path

import pytest
from msgspec import structs
from tests.unit.api.builders import spec as make_spec
from tests.unit.ledger.builders import Job, settings, trajectory

from asyncppo.sync.columns import SealRule
from asyncppo_runtime.learner.errors import GuardError
from asyncppo_runtime.learner.trainer import Trainer


def accumulated(tmp_path: Path, rewards: list[float], advantage: str = "DrGRPO") -> Trainer:
    """A trainer with the gradient of one batch, groups of two, made of trajectories with these rewards."""
    trainer = Trainer(make_spec({"oldLogits.strategy": "Recompute", "algorithm.advantage": advantage}))
    trainer.published(0)
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE, exact=False))
    job.publish(0)
    member = job.member()
    for lease, reward in zip(job.grant(member, len(rewards)), rewards, strict=True):
        job.ledger.receive(member, [structs.replace(trajectory(lease), reward=reward)], 0.0)
    groups = job.ledger.load_groups([group.group_id for group in job.ledger.ready_groups()])
    made = trainer.accumulate(groups, 0, 0)
    assert made.metrics.signal_tokens is not None
    assert (made.metrics.signal_tokens == 0) == (len(set(rewards)) == 1)
    return trainer


def test_the_reward_behind_a_gradient_that_is_not_finite_is_named(tmp_path: Path) -> None:
    trainer = accumulated(tmp_path, [1.0, 0.0, 1e30, 0.0])
    for parameter in trainer.model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(float("inf"))
    with pytest.raises(GuardError, match=r"is of trajectory 3, whose reward is 1e\+30.*reward\.bound"):
        trainer.step(0, ())


def test_without_one_that_stands_out_no_one_is_accused(tmp_path: Path) -> None:
    trainer = accumulated(tmp_path, [1.0, 0.0, 3.0, 0.0])
    for parameter in trainer.model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(float("nan"))
    with pytest.raises(GuardError, match=r"No trajectory of its batch stands out: lower optimizer\.learningRate"):
        trainer.step(0, ())


def test_equal_rewards_are_no_signal(tmp_path: Path) -> None:
    accumulated(tmp_path, [1.0, 1.0, 1.0, 1.0])
