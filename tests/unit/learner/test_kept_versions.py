"""What a strategy keeps in memory outlives the learner's process, for the tokens that need it do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.api.builders import spec as make_spec

from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import ScoreItem, SegmentKey
from asyncppo_runtime.weights.store import WeightStore

MEMORY = {
    "oldLogits.strategy": "Snapshot",
    "oldLogits.snapshot": {"medium": "Memory"},
    "oldLogits.segmentBound": 100.0,
}


def item(record: VersionRecord) -> ScoreItem:
    return ScoreItem(
        SegmentKey(1, 0, "d"), 0, record.version, record.published_hash, 2, 5, [1, 2, 3, 4, 5], np.full(3, -2.0)
    )


@pytest.mark.parametrize("precision", ["Float32", "BFloat16"])
def test_versions_in_memory_outlive_a_restart(precision: str, tmp_path: Path) -> None:
    """From the published weights, and from the checkpoint where those are a cast of the version."""
    spec = make_spec(MEMORY | {"rollout.engine.precision": precision})
    store = WeightStore(tmp_path / "weights")
    known: list[VersionRecord] = []
    first = Trainer(spec, tmp_path / "snapshots", store.directory)
    for version in (0, 1):
        with torch.no_grad():
            for parameter in first.model.parameters():
                parameter += 0.01 * version
        exported = first.export_version()
        stored = store.publish(version, exported.published)
        known.append(
            VersionRecord(
                version=version,
                parent=version - 1,
                lineage=0,
                train_hash=exported.train_hash,
                published_hash=exported.published_hash,
                file_size=stored.size,
                file_sha256=stored.sha256,
            )
        )
        checkpoint = first.checkpoint(version, version, "f")
        first.published(version)
    assert bool(checkpoint.strategy) is (precision != "Float32"), "what is on the volume already is not written twice"

    second = Trainer(spec, tmp_path / "snapshots", store.directory)
    second.adopt({record.version: record.train_hash for record in known})
    second.restore(checkpoint)
    second.published(1)
    for record in known:
        (before,), (after,) = (
            trainer.score([item(record)], {record.version: record}).scores for trainer in (first, second)
        )
        assert (after.version, after.train_hash) == (record.version, record.train_hash)
        assert after.old_logprobs.tolist() == before.old_logprobs.tolist()
