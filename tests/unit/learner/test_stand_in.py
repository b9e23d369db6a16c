"""A version whose weights are gone: what the trainer says, what may stand in for it, and how that is told apart from an exact value."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.api.builders import spec as make_spec
from tests.unit.ledger.builders import Job, settings, trajectory

from asyncppo.sync.columns import SealRule
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.algorithm.batch import NO_VERSION, build_batch, check_ready
from asyncppo_runtime.algorithm.errors import VersionMismatchError
from asyncppo_runtime.algorithm.statistics import batch_sums
from asyncppo_runtime.learner.conversion import trajectory_inputs
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import FALLBACK_KIND, Score, ScoreItem, SegmentKey

SNAPSHOT = {"oldLogits.strategy": "Snapshot", "oldLogits.snapshot": {"medium": "Disk"}}


def item(version: int, weights_hash: str) -> ScoreItem:
    return ScoreItem(SegmentKey(1, 0, "d"), 0, version, weights_hash, 2, 5, [1, 2, 3, 4, 5], np.zeros(3))


def test_a_version_whose_file_is_gone_is_unavailable_and_named(tmp_path: Path) -> None:
    trainer = Trainer(make_spec(SNAPSHOT), tmp_path)
    trainer.published(0)
    (tmp_path / "v00000000.safetensors").unlink()
    record = trainer.export_version()
    known = VersionRecord(
        version=0,
        parent=-1,
        lineage=0,
        train_hash=record.train_hash,
        published_hash=record.published_hash,
        file_size=1,
        file_sha256="",
    )
    outcome = trainer.score([item(0, record.published_hash)], {0: known})
    assert outcome.unavailable == [SegmentKey(1, 0, "d")]
    assert "version 0 cannot be loaded" in outcome.why_unavailable
    assert outcome.scores == []
    assert outcome.discarded == {}


def test_the_stand_in_is_the_resident_policys_value_and_says_what_it_is(tmp_path: Path) -> None:
    trainer = Trainer(make_spec(SNAPSHOT), tmp_path)
    (score,) = trainer.stand_in([item(0, "whatever")])
    assert (score.version, score.kind, score.train_hash) == (NO_VERSION, FALLBACK_KIND, "")
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([[1, 2, 3, 4, 5]])).logits[0].double()
    expected = [float(torch.log_softmax(logits[t - 1], -1)[t + 1]) for t in (2, 3, 4)]
    assert score.old_logprobs.tolist() == pytest.approx(expected, abs=1e-5)


def stand_in(one: ScoreItem) -> Score:
    return Score(one.key, np.asarray(one.behavior_logprobs), NO_VERSION, "", FALLBACK_KIND)


@pytest.mark.parametrize("allowed", [False, True])
def test_the_ledger_takes_stand_ins_only_where_the_job_says_so_and_counts_them(allowed: bool, tmp_path: Path) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE, fallback=allowed))
    job.publish(0)
    member = job.member()
    leases = job.grant(member, 2)
    job.ledger.receive(member, [trajectory(lease) for lease in leases], 0.0)
    first, second = job.ledger.unscored()
    receipt = job.ledger.record_scores([stand_in(first)], 0.0)
    assert receipt.recorded == int(allowed)
    assert [reason for _, reason in receipt.refused] == ([] if allowed else ["wrong_version"])
    assert job.ledger.totals().tokens.fallback == (3 if allowed else 0)
    job.check()
    plain = Score(second.key, np.asarray(second.behavior_logprobs), 7, "train-7", "exact_snapshot")
    assert job.ledger.record_scores([plain], 0.0).refused, "an exact score of another version is refused all the same"
    if allowed:
        right = Score(second.key, np.asarray(second.behavior_logprobs), 0, "train-0", "exact_snapshot")
        job.ledger.record_scores([right], 0.0)
        ready = [group.group_id for group in job.ledger.ready_groups()]
        batch = build_batch(trajectory_inputs(job.ledger.load_groups(ready)), 0)
        check_ready(batch, exact=True, stand_ins=True)
        with pytest.raises(VersionMismatchError):
            check_ready(batch, exact=True)
        assert batch_sums(batch).exact_tokens == 3
        assert batch_sums(batch).tokens == 6
