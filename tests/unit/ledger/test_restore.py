"""Going back to a checkpoint: a new lineage, what waits again, what is left behind."""

import pytest
from tests.unit.ledger.builders import Job, group_counts, manifest, record, trajectory

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import Fate, Restored


def train(job: Job, sender: Envelope, leases: list[Lease] | None = None) -> int:
    """One whole update on one group of fresh tokens; returns the group."""
    version = job.ledger.view().announced
    leases = leases or job.grant(sender, 2, allowed=100)
    job.ledger.receive(sender, [trajectory(lease, [version]) for lease in leases], 1.0)
    job.sync(sender, trained=[leases[0].group_id])
    return leases[0].group_id


def republish(job: Job, sender: Envelope, restored: Restored) -> None:
    """Publish the checkpoint's weights as the next version and bring the members to it."""
    job.ledger.publish(
        record(restored.next_version, parent=restored.version, lineage=restored.lineage, reason="restore"),
        None,
        [],
        [],
        b"",
        2.0,
    )
    job.score_all()
    announced = job.ledger.view().announced
    epoch = job.ledger.begin("c", job.ledger.view().epoch, 2.0).epoch
    job.ledger.seal(epoch, "c", announced, [sender.target], [manifest(sender, announced)], [], 2.0)
    job.ledger.finish(epoch, "c", [sender.target], [], {}, 2.0)


def test_restoring_the_newest_version_changes_nothing(job: Job) -> None:
    sender = job.member()
    train(job, sender)
    job.ledger.commit_checkpoint(1, "checkpoints/1", 1.0)
    before = (job.ledger.totals(), job.ledger.versions())
    assert job.ledger.restore(1, 2.0) == Restored(1, 2, 0, republish=False, undone=0, discarded=0)
    assert (job.ledger.totals(), job.ledger.versions()) == before
    assert job.sync(sender) == 2


def test_an_older_checkpoint_opens_a_lineage_and_its_batches_wait_again(job: Job) -> None:
    sender = job.member()
    first = job.grant(sender, 2)
    second = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(lease) for lease in first + second], 1.0)
    job.sync(sender, trained=[0])
    job.ledger.commit_checkpoint(1, "checkpoints/1", 1.0)
    job.sync(sender, trained=[1])
    assert job.ledger.restore(1, 2.0) == Restored(1, 3, 1, republish=True, undone=2, discarded=0)
    totals = job.ledger.totals()
    assert (totals.trained, totals.waiting, totals.undone, totals.received) == (2, 2, 2, 4)
    assert totals.tokens.trained == 6
    assert [row.abandoned for row in job.ledger.versions()] == [False, False, True]
    assert [ready.group_id for ready in job.ledger.ready_groups()] == [1]
    republish(job, sender, job.ledger.restore(1, 2.0))
    job.sync(sender, trained=[1])
    assert job.ledger.totals().trained == 4
    kept = job.ledger.trajectory(second[0].lease_id)
    assert kept is not None
    assert (kept.fate, kept.trained_version) == (Fate.TRAINED, 4)


def test_a_restore_that_was_cut_short_asks_for_its_publication_again(job: Job) -> None:
    sender = job.member()
    job.ledger.commit_checkpoint(0, "checkpoints/0", 1.0)
    train(job, sender)
    first = job.ledger.restore(0, 2.0)
    job.reopen()
    again = job.ledger.restore(0, 3.0)
    assert (
        (again.next_version, again.lineage, again.republish)
        == (first.next_version, first.lineage, True)
        == (2, 1, True)
    )
    republish(job, sender, again)
    assert job.ledger.view().version == 2
    assert job.ledger.versions()[2].record.parent == 0


def test_trajectories_with_tokens_of_abandoned_versions_are_discarded(job: Job) -> None:
    sender = job.member()
    job.ledger.commit_checkpoint(0, "checkpoints/0", 1.0)
    train(job, sender)
    trained, waiting, unfinished, unseen = (job.grant(sender, 2, allowed=100) for _ in range(4))
    job.ledger.receive(sender, [trajectory(lease, [1]) for lease in waiting], 1.0)
    job.ledger.receive(sender, [trajectory(lease, [1], finished=False) for lease in unfinished], 1.0)
    train(job, sender, trained)
    job.ledger.receive(sender, [trajectory(waiting[0], [1])], 1.0)
    restored = job.ledger.restore(0, 2.0)
    # Groups 0 and 1 were trained; group 1 of tokens of version 1, which is no more.
    assert (restored.undone, restored.discarded) == (4, 4)
    totals = job.ledger.totals()
    assert (totals.trained, totals.waiting, totals.discarded) == (0, 2, {"abandoned_lineage": 4})
    # Scored tokens keep their fate; nothing was unscored, because syncs had sealed it all.
    assert totals.tokens.discarded == {}
    # What was in flight cannot be trained on either, with or without tokens in the ledger.
    late = [trajectory(lease, [1, 2]) for lease in unfinished] + [trajectory(lease, [2]) for lease in unseen]
    receipt = job.ledger.receive(sender, late, 3.0)
    assert {refused.reason for refused in receipt.reply.refused} == {"abandoned_lineage"}
    assert not receipt.fenced
    assert job.ledger.totals().discarded == {"abandoned_lineage": 8}
    job.check()


def test_places_lost_to_a_restore_are_leased_again_and_count_against_nothing(job: Job) -> None:
    sender = job.member()
    job.ledger.commit_checkpoint(0, "checkpoints/0", 1.0)
    train(job, sender)
    (kept_lease, lost_lease) = job.grant(sender, 2, allowed=100)
    job.ledger.receive(sender, [trajectory(lost_lease, [1])], 1.0)
    for _ in range(4):
        restored = job.ledger.restore(0, 2.0)
        republish(job, sender, restored)
        version = job.ledger.view().version
        job.ledger.discard_groups([0], "test", 2.0)
        (lease,) = job.grant(sender, 1, allowed=0)
        assert lease.group_id == kept_lease.group_id
        job.ledger.receive(sender, [trajectory(lease, [version])], 2.0)
        train(job, sender)
    assert group_counts(job.ledger).discarded == 1


def test_leases_wait_while_the_announced_version_is_abandoned(job: Job) -> None:
    sender = job.member()
    job.ledger.commit_checkpoint(0, "checkpoints/0", 1.0)
    train(job, sender)
    restored = job.ledger.restore(0, 2.0)
    with pytest.raises(LedgerRefusedError, match="SyncActive: version 1 was left behind"):
        job.grant(sender, 1)
    republish(job, sender, restored)
    assert len(job.grant(sender, 1)) == 1


def test_an_open_sealed_epoch_moves_to_the_new_lineage(job: Job) -> None:
    sender = job.member()
    job.ledger.commit_checkpoint(0, "checkpoints/0", 1.0)
    epoch = job.seal(sender).epoch
    job.publish(1)
    restored = job.ledger.restore(0, 2.0)
    assert job.ledger.view().stepped is False
    job.ledger.publish(record(2, parent=0, lineage=restored.lineage, reason="restore"), None, [], [], b"", 2.0)
    view = job.ledger.view()
    assert (view.stepped, view.target) == (True, 2)
    assert job.ledger.finish(epoch, "c", ["r0"], [], {}, 2.0).announced == 2


def test_only_committed_checkpoints_of_this_lineage_can_be_restored(job: Job) -> None:
    sender = job.member()
    with pytest.raises(LedgerRefusedError, match=r"UnknownCheckpoint.*there are: none"):
        job.ledger.restore(0, 1.0)
    with pytest.raises(LedgerRefusedError, match="UnknownVersion"):
        job.ledger.commit_checkpoint(5, "checkpoints/5", 1.0)
    job.ledger.commit_checkpoint(0, "checkpoints/0", 1.0)
    train(job, sender)
    job.ledger.commit_checkpoint(1, "checkpoints/1", 1.0)
    job.ledger.restore(0, 2.0)
    assert [(row.version, row.path, row.abandoned) for row in job.ledger.checkpoints()] == [
        (0, "checkpoints/0", False),
        (1, "checkpoints/1", True),
    ]
    with pytest.raises(LedgerRefusedError, match="Abandoned"):
        job.ledger.restore(1, 2.0)
    with pytest.raises(LedgerRefusedError, match="UnknownVersion"):
        job.ledger.commit_checkpoint(1, "checkpoints/1", 2.0)
    job.ledger.drop_checkpoint(1, 2.0)
    job.ledger.drop_checkpoint(1, 2.0)
    assert [row.version for row in job.ledger.checkpoints()] == [0]


def test_no_group_is_trained_twice_in_a_lineage(job: Job) -> None:
    sender = job.member()
    group = train(job, sender)
    job.seal(sender)
    with pytest.raises(LedgerRefusedError, match="GroupNotReady"):
        job.publish(2, [group])
