"""Pruning: bodies go when no checkpoint can bring their group back; rows, counts and a sample stay."""

import pytest
from tests.unit.ledger.builders import Job, trajectory

from asyncppo_runtime.ledger.errors import LedgerRefusedError


def updates(job: Job, count: int) -> None:
    """So many updates of one group each, with a checkpoint after each."""
    sender = job.member()
    for _ in range(count):
        version = job.ledger.view().announced
        leases = job.grant(sender, 2, allowed=100)
        job.ledger.receive(sender, [trajectory(lease, [version]) for lease in leases], 1.0)
        job.ledger.commit_checkpoint(job.sync(sender, [leases[0].group_id]), "checkpoints", 1.0)


def bodies(job: Job) -> dict[int, bool]:
    """Lease → whether its body is there."""
    found = {}
    for summary in job.ledger.trajectories():
        kept = job.ledger.trajectory(summary.lease_id)
        assert kept is not None
        found[summary.lease_id] = kept.trajectory is not None
        assert all((part.old_logprobs is not None) is found[summary.lease_id] for part in kept.segments)
    return found


def test_what_a_checkpoint_may_bring_back_stays(job: Job) -> None:
    updates(job, 4)
    assert job.ledger.prune(1.0, sample_every=0) == 1
    job.ledger.drop_checkpoint(1, 1.0)
    job.ledger.drop_checkpoint(2, 1.0)
    before = job.ledger.totals()
    assert job.ledger.prune(1.0, sample_every=0) == 2
    assert bodies(job) == {1: False, 2: False, 3: False, 4: False, 5: False, 6: False, 7: True, 8: True}
    assert job.ledger.totals() == before == job.ledger.recount()
    restored = job.ledger.restore(3, 1.0)
    assert restored.undone == 2
    assert [len(group) for group in job.ledger.load_groups([3])] == [2]


def test_a_sample_is_kept_whole(job: Job) -> None:
    updates(job, 5)
    for version in range(1, 5):
        job.ledger.drop_checkpoint(version, 1.0)
    assert job.ledger.prune(1.0, sample_every=2) == 5
    assert job.ledger.prune(1.0, sample_every=2) == 0
    assert sorted({(lease - 1) // 2 for lease, there in bodies(job).items() if there}) == [0, 2, 4]


def test_without_a_checkpoint_only_discarded_groups_are_pruned(job: Job) -> None:
    sender = job.member()
    for _ in range(3):
        job.ledger.receive(sender, [trajectory(lease) for lease in job.grant(sender, 2, allowed=100)], 1.0)
    job.sync(sender, trained=[1])
    job.ledger.discard_groups([2], "stale", 1.0)
    assert job.ledger.prune(1.0, sample_every=0) == 1
    assert bodies(job) == {1: True, 2: True, 3: True, 4: True, 5: False, 6: False}


def test_a_call_is_bounded(job: Job) -> None:
    updates(job, 3)
    job.ledger.drop_checkpoint(1, 1.0)
    job.ledger.drop_checkpoint(2, 1.0)
    assert [job.ledger.prune(1.0, limit=2) for _ in range(3)] == [2, 1, 0]


def test_no_checkpoint_is_taken_of_what_is_pruned(job: Job) -> None:
    updates(job, 3)
    for version in (1, 2):
        job.ledger.drop_checkpoint(version, 1.0)
    job.ledger.prune(1.0)
    with pytest.raises(LedgerRefusedError, match="Pruned"):
        job.ledger.commit_checkpoint(2, "checkpoints/2", 1.0)
