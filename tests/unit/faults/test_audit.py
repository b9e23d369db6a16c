"""The audit of a run under faults: what an old log-prob must be, where the strategy is exact and where it approximates."""

from pathlib import Path

import numpy as np
import pytest
from tests.faults.audit import audit
from tests.unit.ledger.builders import Job, settings, trajectory

from asyncppo.api.correction import Strategy
from asyncppo.sync.columns import SealRule
from asyncppo_runtime.ledger.records import FALLBACK_KIND, Score

OWN = (0, "train-0")
NOBODY = (-1, "")


@pytest.mark.parametrize(
    ("strategy", "label", "kind", "mislabelled", "uncovered"),
    [
        (Strategy.SNAPSHOT, OWN, "exact_snapshot", 0, 0),
        (Strategy.SNAPSHOT, NOBODY, FALLBACK_KIND, 2, 6),
        (Strategy.LOG_LINEAR, NOBODY, "loglinear", 0, 0),
        (Strategy.LOG_LINEAR, OWN, "loglinear", 2, 0),
        (Strategy.LOG_LINEAR, NOBODY, "linear", 0, 6),
    ],
)
def test_the_label_that_the_strategy_promises(
    tmp_path: Path, strategy: Strategy, label: tuple[int, str], kind: str, mislabelled: int, uncovered: int
) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE, exact=strategy.exact, fallback=strategy.exact))
    job.publish(0)
    member = job.member()
    job.ledger.receive(member, [trajectory(lease) for lease in job.grant(member, 2)], 0.0)
    scores = [Score(item.key, np.asarray(item.behavior_logprobs), *label, kind) for item in job.ledger.unscored()]
    assert job.ledger.record_scores(scores, 0.0).recorded == 2
    job.publish(1, [group.group_id for group in job.ledger.ready_groups()])
    job.ledger.close()
    found = audit(tmp_path / "ledger.db", strategy)
    assert (found.totals.trained, found.lost, found.twice, found.drift) == (2, 0, 0, "")
    assert (found.mislabelled, found.uncovered) == (mislabelled, uncovered)
