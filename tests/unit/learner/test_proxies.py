"""Scores that a proxy makes at the step: recorded as what they are, also when a restart reads them back."""

from pathlib import Path

import pytest
from tests.unit.api.builders import spec as make_spec
from tests.unit.ledger.builders import Job, settings, trajectory

from asyncppo.api.correction import Strategy
from asyncppo.sync.columns import SealRule
from asyncppo_runtime.algorithm.batch import NO_VERSION
from asyncppo_runtime.learner.trainer import Trainer


@pytest.mark.parametrize("strategy", [one for one in Strategy if not one.exact])
def test_a_proxy_that_a_restart_reads_back_is_no_exact_value(strategy: Strategy, tmp_path: Path) -> None:
    """A gradient is computed, its scores are recorded, the learner dies before the step: the same batch comes again."""
    trainer = Trainer(make_spec({"oldLogits.strategy": strategy.value}))
    trainer.published(0)
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE, exact=False))
    job.publish(0)
    member = job.member()
    job.ledger.receive(member, [trajectory(lease) for lease in job.grant(member, 2)], 0.0)
    for _ in range(2):
        groups = job.ledger.load_groups([group.group_id for group in job.ledger.ready_groups()])
        made = trainer.accumulate(groups, 0, 0)
        assert made.metrics.exact_coverage == 0.0
        job.ledger.record_scores(made.scores, 0.0)
        job.reopen()
    (segment,) = job.ledger.load_groups([groups[0][0].group_id])[0][0].segments
    assert (segment.scorer_version, segment.scorer_hash, segment.kind) == (NO_VERSION, "", trainer.strategy.traits.kind)
    job.check()
