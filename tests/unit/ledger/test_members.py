"""Members: incarnations, readiness, fencing, leaving in good order."""

import pytest
from msgspec import structs
from tests.unit.ledger.builders import TTL, Job, published_hash, trajectory

from asyncppo.wire.membership import MemberState
from asyncppo_runtime.ledger.errors import LedgerRefusedError


def test_incarnations_are_never_reused(job: Job) -> None:
    numbers = [job.ledger.join(name, "http://x", 0.0).incarnation for name in ("a", "b", "a")]
    job.reopen()
    numbers += [job.ledger.join(name, "http://x", 0.0).incarnation for name in ("a", "c")]
    assert len(set(numbers)) == 5
    assert numbers == sorted(numbers)


def test_joining_again_fences_the_older_incarnation(job: Job) -> None:
    old = job.member()
    new = job.member()
    assert job.ledger.heartbeat(old, 0, [], 1.0).state is MemberState.FENCED
    assert job.ledger.heartbeat(new, 0, [], 1.0).state is MemberState.READY
    with pytest.raises(LedgerRefusedError, match="StaleIncarnation"):
        job.grant(old, 1)


def test_only_the_announced_versions_own_bytes_make_a_member_ready(job: Job) -> None:
    joined = job.ledger.join("r0", "http://x", 0.0)
    envelope = structs.replace(job.member("other"), target="r0", incarnation=joined.incarnation)
    for version, weights_hash in ((0, "other"), (3, published_hash(3))):
        with pytest.raises(LedgerRefusedError, match="HashMismatch"):
            job.ledger.ready(envelope, version, weights_hash, 1.0)
    assert job.ledger.ready(envelope, 0, published_hash(0), 1.0) is MemberState.READY
    assert job.ledger.ready(envelope, 0, published_hash(0), 1.0) is MemberState.READY


def test_a_member_that_is_ready_during_a_sync_stays_joining(job: Job) -> None:
    sender = job.member()
    joined = job.ledger.join("late", "http://x", 0.0)
    late = structs.replace(sender, target="late", incarnation=joined.incarnation)
    epoch = job.seal(sender).epoch
    assert job.ledger.ready(late, 0, published_hash(0), 1.0) is MemberState.JOINING
    job.publish(1)
    job.ledger.finish(epoch, "c", ["r0"], [], {}, 1.0)
    assert job.ledger.ready(late, 0, published_hash(0), 1.0) is MemberState.JOINING
    assert job.ledger.ready(late, 1, published_hash(1), 1.0) is MemberState.READY


def test_fencing_is_final_for_an_incarnation(job: Job) -> None:
    sender = job.member()
    job.ledger.fence("r0", "silent", 1.0)
    job.ledger.fence("r0", "again", 1.0)
    job.ledger.fence("nobody", "silent", 1.0)
    assert [event.detail for event in job.ledger.events() if event.kind == "fenced"] == [f"{sender.incarnation} silent"]
    with pytest.raises(LedgerRefusedError, match=r"Fenced.*join again"):
        job.ledger.ready(sender, 0, published_hash(0), 1.0)


def test_heartbeats_name_leases_that_are_no_longer_held(job: Job) -> None:
    sender, other = job.member("r0"), job.member("r1")
    mine, returned, _ = job.grant(sender, 3)
    (theirs,) = job.grant(other, 1)
    job.ledger.give_back(sender, [returned.lease_id], 1.0)
    named = [mine.lease_id, returned.lease_id, theirs.lease_id, 99]
    assert job.ledger.heartbeat(sender, 0, named, 1.0).lost == [returned.lease_id, theirs.lease_id, 99]


def test_a_fenced_or_unknown_sender_is_told_and_renews_nothing(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.fence("r0", "test", 0.0)
    beat = job.ledger.heartbeat(sender, 0, [lease.lease_id], TTL)
    assert (beat.state, beat.lost) == (MemberState.FENCED, [lease.lease_id])
    unknown = job.ledger.heartbeat(structs.replace(sender, target="nobody"), 0, [], TTL)
    assert (unknown.state, unknown.incarnation) == (MemberState.FENCED, 0)
    assert job.ledger.expire(TTL + 1.0) == [lease.lease_id]


def test_leases_stay_with_the_name_that_comes_back(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    again = job.member()
    assert job.ledger.heartbeat(again, 0, [lease.lease_id], TTL).lost == []
    assert job.ledger.expire(TTL + 1.0) == []
    assert job.ledger.receive(again, [trajectory(lease)], TTL + 1.0).received == [lease.lease_id]


def test_what_a_new_process_of_the_name_does_not_hold_expires_at_once(job: Job) -> None:
    sender, other = job.member("r0"), job.member("r1")
    kept, gone = job.grant(sender, 2)
    (theirs,) = job.grant(other, 1)
    again = job.member("r0")
    epoch = job.ledger.begin("c", 0, 1.0).epoch
    job.ledger.heartbeat(again, 0, [kept.lease_id], 1.0)
    assert job.ledger.totals().in_flight == 3, "clocks stand still during a sync"
    job.ledger.roll_back(epoch, 1.0)
    (fresh,) = job.grant(again, 1)
    job.ledger.heartbeat(again, 0, [kept.lease_id], 1.0)
    totals = job.ledger.totals()
    assert (totals.in_flight, totals.expired) == (3, 1)
    assert job.ledger.heartbeat(again, 0, [gone.lease_id, fresh.lease_id], 1.0).lost == [gone.lease_id]
    assert job.ledger.heartbeat(other, 0, [theirs.lease_id], 1.0).lost == []


def test_a_drained_member_leaves_and_its_leases_go_back(job: Job) -> None:
    sender = job.member()
    job.grant(sender, 2)
    assert job.ledger.drain("r0", 1.0) is MemberState.DRAINING
    assert job.ledger.drain("r0", 1.0) is MemberState.DRAINING
    epoch = job.ledger.begin("c", 0, 1.0).epoch
    with pytest.raises(LedgerRefusedError, match="SyncActive"):
        job.ledger.leave(sender, 1.0)
    job.ledger.roll_back(epoch, 1.0)
    assert job.ledger.leave(sender, 1.0) is MemberState.LEFT
    totals = job.ledger.totals()
    assert (totals.returned, totals.in_flight) == (2, 0)
    assert job.ledger.heartbeat(sender, 0, [], 1.0).state is MemberState.LEFT
    assert job.ledger.view().members == []


def test_a_joining_or_unknown_member_can_be_drained_or_not(job: Job) -> None:
    job.ledger.join("r0", "http://x", 0.0)
    assert job.ledger.drain("r0", 1.0) is MemberState.DRAINING
    with pytest.raises(LedgerRefusedError, match="UnknownMember"):
        job.ledger.drain("nobody", 1.0)


def test_a_draining_member_still_takes_part_in_syncs(job: Job) -> None:
    sender = job.member()
    job.ledger.drain("r0", 1.0)
    assert job.sync(sender) == 1
    assert job.ledger.members()[0].version == 1
