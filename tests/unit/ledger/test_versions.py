"""Publication: one row, one batch, one transaction; what weights are still needed."""

from pathlib import Path

import pytest
from tests.unit.ledger.builders import GroupCounts, Job, group_counts, record, settings, trajectory

from asyncppo.wire.versions import Canary
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import ReadyGroup, SealRule


def full_group(job: Job, sender, versions=(0,)) -> int:  # type: ignore[no-untyped-def]
    """Receive one whole group."""
    leases = job.grant(sender, job.settings.group_size, allowed=10)
    job.ledger.receive(sender, [trajectory(lease, versions) for lease in leases], 1.0)
    return leases[0].group_id


def test_a_publication_and_its_batch_are_one(job: Job) -> None:
    sender = job.member()
    trained, flat = full_group(job, sender), full_group(job, sender)
    job.score_all()
    job.seal(sender)
    canary = Canary([1, 2, 3], [-0.5, -0.25], 1e-3)
    job.ledger.publish(record(1), canary, [trained], [flat], b"metrics", 2.0)
    totals = job.ledger.totals()
    assert (totals.trained, totals.waiting, totals.discarded) == (2, 0, {"zero_variance": 2})
    assert (totals.tokens.trained, totals.tokens.scored) == (6, 12)
    assert group_counts(job.ledger) == GroupCounts(open=0, ready=0, trained=1, discarded=1)
    row = job.ledger.versions()[1]
    assert (row.record, row.metrics, row.trained_groups, row.announced) == (record(1), b"metrics", 1, False)
    assert job.ledger.view().canary == canary
    kept = job.ledger.trajectory(1)
    assert kept is not None
    assert kept.trained_version == 1


def test_a_refused_publication_marks_nothing(job: Job) -> None:
    sender = job.member()
    group = full_group(job, sender)
    other = full_group(job, sender)
    job.score_all()
    job.seal(sender)
    with pytest.raises(LedgerRefusedError, match="GroupNotReady"):
        job.ledger.publish(record(1), None, [group, 99], [other], b"", 2.0)
    assert job.ledger.view().version == 0
    assert job.ledger.totals().waiting == 4
    assert job.ledger.totals() == job.ledger.recount()


def test_a_version_and_its_checkpoint_are_one(job: Job) -> None:
    job.seal(job.member())
    with pytest.raises(LedgerRefusedError, match="GroupNotReady"):
        job.ledger.publish(record(1), None, [99], [], b"", 1.0, checkpoint="checkpoints/1")
    assert job.ledger.checkpoints() == []
    for _ in range(2):
        job.ledger.publish(record(1), None, [], [], b"", 1.0, checkpoint="checkpoints/1")
    assert [(row.version, row.path) for row in job.ledger.checkpoints()] == [(1, "checkpoints/1")]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (record(0, reason="other"), "VersionTaken"),
        (record(2), "VersionTaken"),
        (record(1, parent=-1), "WrongParent"),
        (record(1, lineage=1), "WrongParent"),
    ],
)
def test_numbers_parents_and_lineages_must_fit(job: Job, wrong, reason: str) -> None:  # type: ignore[no-untyped-def]
    job.seal(job.member())
    with pytest.raises(LedgerRefusedError) as refused:
        job.ledger.publish(wrong, None, [], [], b"", 1.0)
    assert refused.value.reason == reason


def test_a_barrier_job_steps_once_and_only_when_sealed(job: Job) -> None:
    sender = job.member()
    group = full_group(job, sender)
    with pytest.raises(LedgerRefusedError, match="NotSealed"):
        job.publish(1, [group])
    job.score_all()
    epoch = job.seal(sender).epoch
    job.publish(1, [group])
    with pytest.raises(LedgerRefusedError, match="AlreadyStepped"):
        job.publish(2)
    with pytest.raises(LedgerRefusedError, match="GroupNotReady"):
        job.ledger.publish(record(2, reason="restore"), None, [group], [], b"", 1.0)
    job.ledger.finish(epoch, "c", ["r0"], [], {}, 1.0)
    with pytest.raises(LedgerRefusedError, match="NotSealed"):
        job.publish(2)


def test_a_batch_without_old_logprobs_is_refused(tmp_path: Path) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE))
    job.publish(0)
    group = full_group(job, job.member())
    with pytest.raises(LedgerRefusedError, match="NotScored"):
        job.publish(1, [group])
    job.score_all()
    job.publish(1, [group])
    job.check()
    job.ledger.close()


def test_ready_groups_come_oldest_version_first(tmp_path: Path) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE))
    job.publish(0)
    sender = job.member()
    slow = job.grant(sender, 2, allowed=1)
    quick = job.grant(sender, 2, allowed=2)
    job.publish(1)
    epoch = job.ledger.begin("c", 0, 1.0).epoch
    job.ledger.seal(epoch, "c", 0, ["r0"], [], [], 1.0)
    job.ledger.finish(epoch, "c", ["r0"], [], {}, 1.0)
    job.ledger.receive(sender, [trajectory(lease, [1]) for lease in slow], 2.0)
    job.ledger.receive(sender, [trajectory(lease, [0, 1]) for lease in quick], 2.0)
    assert job.ledger.ready_groups() == [ReadyGroup(1, 0, 1, 12, {0: 2, 1: 2}), ReadyGroup(0, 1, 1, 6, {1: 2})]
    assert [len(group) for group in job.ledger.load_groups([1, 0])] == [2, 2]
    assert [group[0].group_id for group in job.ledger.load_groups([1, 0])] == [1, 0]
    with pytest.raises(LedgerRefusedError, match="GroupNotReady"):
        job.ledger.load_groups([0, 5])
    job.check()
    job.ledger.close()


def test_only_the_attempt_that_counts_is_loaded(job: Job) -> None:
    sender = job.member()
    first, second = job.grant(sender, 2, allowed=1)
    job.ledger.receive(sender, [trajectory(first, [0, 0], end_reason="environment_error"), trajectory(second)], 1.0)
    (third,) = job.grant(sender, 1, allowed=1)
    job.ledger.receive(sender, [trajectory(third, reward=0.5)], 1.0)
    (ready,) = job.ledger.ready_groups()
    assert ready.tokens == 6
    (group,) = job.ledger.load_groups([0])
    assert [(kept.slot, kept.lease_id, kept.attempt) for kept in group] == [
        (0, third.lease_id, 2),
        (1, second.lease_id, 1),
    ]


def test_needed_weights_where_versions_are_flushed(job: Job) -> None:
    sender = job.member()
    full_group(job, sender)
    job.grant(sender, 1)
    assert job.ledger.needed_versions() == {0}
    job.score_all()
    number = job.seal(sender).epoch
    job.publish(1)
    assert job.ledger.needed_versions() == {0, 1}
    job.ledger.finish(number, "c", ["r0"], [], {}, 1.0)
    assert job.ledger.needed_versions() == {1}


def test_needed_weights_of_snapshots(tmp_path: Path) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE, group_size=1))
    job.publish(0)
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    for version in (1, 2):
        job.publish(version)
        epoch = job.ledger.begin("c", version - 1, 1.0).epoch
        job.ledger.seal(epoch, "c", version - 1, ["r0"], [], [], 1.0)
        job.ledger.finish(epoch, "c", ["r0"], [], {}, 1.0)
    assert job.ledger.needed_versions() == {0, 1, 2}
    job.ledger.receive(sender, [trajectory(lease, [0, 2])], 2.0)
    assert job.ledger.needed_versions() == {0, 2}
    job.score_all()
    assert job.ledger.needed_versions() == {2}
    job.check()
    job.ledger.close()


def test_a_version_nobody_samples_under_is_announced_at_once(tmp_path: Path) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE))
    job.publish(0)
    assert job.ledger.view().announced == 0
    job.publish(1)
    assert job.ledger.view().announced == 1
    job.member()
    job.publish(2)
    assert (job.ledger.view().announced, job.ledger.view().unannounced) == (1, True)
    job.ledger.close()
