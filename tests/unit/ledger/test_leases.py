"""Leases: capacity per group, re-leasing, the three endings, the clock."""

from dataclasses import replace

import pytest
from msgspec import structs
from tests.unit.ledger.builders import TTL, GroupCounts, Job, group_counts, record, trajectory

from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import LeaseState, OpenGroup, Reason


def test_group_k_is_task_k_and_seeds_differ_by_place_and_attempt(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 4)
    assert [(lease.group_id, lease.task.index, lease.attempt) for lease in leases] == [
        (0, 0, 1),
        (0, 0, 1),
        (1, 1, 1),
        (1, 1, 1),
    ]
    assert leases[0].task.seed == leases[1].task.seed != leases[2].task.seed
    assert len({lease.sampling_seed for lease in leases}) == 4
    assert all(0 <= lease.task.seed < 2**63 and 0 <= lease.sampling_seed < 2**63 for lease in leases)
    job.ledger.give_back(sender, [leases[0].lease_id], job.now)
    again = job.grant(sender, 1)[0]
    assert (again.group_id, again.attempt, again.task) == (0, 2, leases[0].task)
    assert again.sampling_seed != leases[0].sampling_seed


def test_capacity_is_counted_in_live_groups(job: Job) -> None:
    sender = job.member()
    assert len(job.grant(sender, 100, allowed=3)) == 6
    assert job.grant(sender, 100, allowed=3) == []
    assert group_counts(job.ledger) == GroupCounts(open=3, ready=0, trained=0, discarded=0)


def test_members_of_an_open_group_are_leasable_at_any_capacity(job: Job) -> None:
    sender = job.member()
    first = job.grant(sender, 1, allowed=1)
    second = job.grant(sender, 5, allowed=0)
    assert [(lease.group_id) for lease in first + second] == [0, 0]


def test_a_waiting_group_takes_capacity_until_it_is_trained(job: Job) -> None:
    sender = job.member()
    job.ledger.receive(sender, [trajectory(lease) for lease in job.grant(sender, 2, allowed=1)], 1.0)
    assert group_counts(job.ledger) == GroupCounts(open=0, ready=1, trained=0, discarded=0)
    assert job.grant(sender, 2, allowed=1) == []
    job.sync(sender, trained=[0])
    assert [lease.group_id for lease in job.grant(sender, 2, allowed=1)] == [1, 1]
    assert group_counts(job.ledger) == GroupCounts(open=1, ready=0, trained=1, discarded=0)


def test_lost_members_are_leased_again_oldest_group_first(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 4)
    job.ledger.give_back(sender, [leases[3].lease_id, leases[1].lease_id], job.now)
    assert [lease.group_id for lease in job.grant(sender, 3)] == [0, 1, 2]


def test_a_place_lost_too_often_discards_the_group(job: Job) -> None:
    sender = job.member()
    kept, lost = job.grant(sender, 2, allowed=1)
    job.ledger.receive(sender, [trajectory(kept)], 1.0)
    for attempt in (1, 2):
        job.ledger.receive(sender, [trajectory(lost, end_reason="environment_timeout")], 1.0)
        (lost,) = job.grant(sender, 1, allowed=1)
        assert lost.attempt == attempt + 1
    job.ledger.receive(sender, [trajectory(lost, end_reason="environment_error")], 1.0)
    totals = job.ledger.totals()
    assert totals.discarded == {"environment_timeout": 2, "environment_error": 1, "group_incomplete": 1}
    assert totals.waiting == 0
    assert group_counts(job.ledger) == GroupCounts(open=0, ready=0, trained=0, discarded=1)
    assert [lease.group_id for lease in job.grant(sender, 1, allowed=1)] == [1]


def test_giving_back_does_not_count_against_the_group(job: Job) -> None:
    sender = job.member()
    for _ in range(10):
        (lease,) = job.grant(sender, 1, allowed=1)
        assert job.ledger.give_back(sender, [lease.lease_id], job.now) == [lease.lease_id]
    assert group_counts(job.ledger).open == 1
    assert job.ledger.totals().returned == 10


def test_giving_back_twice_or_what_is_not_ones_own_changes_nothing(job: Job) -> None:
    sender, other = job.member("r0"), job.member("r1")
    (lease,) = job.grant(sender, 1)
    assert job.ledger.give_back(other, [lease.lease_id, 99], job.now) == []
    assert job.ledger.give_back(sender, [lease.lease_id], job.now) == [lease.lease_id]
    assert job.ledger.give_back(sender, [lease.lease_id], job.now) == []
    assert job.ledger.totals().returned == 1


def test_a_discarded_group_withdraws_its_leases_and_the_heartbeat_says_so(job: Job) -> None:
    sender = job.member()
    received, in_flight = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(received)], 1.0)
    assert job.ledger.discard_groups([0, 77], Reason.STALE, 2.0) == 1
    assert job.ledger.discard_groups([0], Reason.STALE, 2.0) == 0
    assert job.ledger.heartbeat(sender, 0, [in_flight.lease_id], 2.0).lost == [in_flight.lease_id]
    totals = job.ledger.totals()
    assert (totals.expired, totals.in_flight, totals.discarded) == (1, 0, {"stale": 1})
    assert totals.tokens.discarded == {"stale": 3}


def test_a_lease_lives_for_its_ttl_after_the_last_heartbeat(job: Job) -> None:
    sender = job.member()
    first, second = job.grant(sender, 2)
    assert job.ledger.heartbeat(sender, 0, [first.lease_id], TTL).lost == []
    assert job.ledger.expire(TTL) == []
    assert job.ledger.expire(TTL + 1.0) == [second.lease_id]
    assert job.ledger.expire(2 * TTL) == []
    assert job.ledger.expire(2 * TTL + 1.0) == [first.lease_id]
    assert job.ledger.totals().expired == 2


def test_reopening_restarts_the_clock(job: Job) -> None:
    sender = job.member()
    job.grant(sender, 1)
    job.now = 1000.0
    job.reopen()
    assert job.ledger.expire(1000.0) == []
    assert job.ledger.expire(1000.0 + TTL) == []
    assert len(job.ledger.expire(1001.0 + TTL)) == 1


def test_nothing_expires_during_a_sync_and_the_clock_restarts_after_it(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    epoch = job.ledger.begin("c", 0, 1.0).epoch
    assert job.ledger.expire(500.0) == []
    job.ledger.roll_back(epoch, 500.0)
    assert job.ledger.expire(500.0) == []
    assert job.ledger.expire(501.0 + TTL) == [lease.lease_id]


def test_a_sender_that_may_not_lease_is_refused(job: Job) -> None:
    sender = job.member()
    for envelope, reason in (
        (structs.replace(sender, target="nobody"), "UnknownMember"),
        (structs.replace(sender, incarnation=99), "StaleIncarnation"),
        (structs.replace(sender, job_uid="job-2"), "WrongJob"),
    ):
        with pytest.raises(LedgerRefusedError) as refused:
            job.ledger.grant(envelope, 0, 1, 8, TTL, job.now)
        assert refused.value.reason == reason
    with pytest.raises(LedgerRefusedError, match="StaleVersion"):
        job.ledger.grant(sender, 5, 1, 8, TTL, job.now)
    job.ledger.drain("r0", job.now)
    with pytest.raises(LedgerRefusedError, match="NotReady"):
        job.grant(sender, 1)
    job.ledger.fence("r0", "test", job.now)
    with pytest.raises(LedgerRefusedError, match="Fenced"):
        job.grant(sender, 1)
    assert job.ledger.totals().leased == 0


def test_leases_wait_from_the_seal_to_the_finish(job: Job) -> None:
    sender = job.member()
    epoch = job.ledger.begin("c", 0, job.now).epoch
    assert len(job.grant(sender, 1)) == 1
    job.seal(sender, epoch=epoch)
    for _ in range(2):
        with pytest.raises(LedgerRefusedError, match="SyncActive"):
            job.grant(sender, 1)
        job.ledger.publish(record(1), None, [], [], b"", job.now)
    job.ledger.finish(epoch, "c", ["r0"], [], {}, 1.0)
    assert len(job.grant(sender, 1)) == 1


def test_open_groups_tell_who_the_stragglers_are(job: Job) -> None:
    sender = job.member()
    early = job.grant(sender, 2, allowed=1)
    job.ledger.receive(sender, [trajectory(early[0])], 1.0)
    assert job.ledger.open_groups() == [OpenGroup(0, 0, 0, received=1, in_flight=1, missing=0)]
    assert job.ledger.open_groups()[0].oldest_version == 0
    job.sync(sender)
    late = job.grant(sender, 1, allowed=2)
    assert job.ledger.open_groups()[1] == OpenGroup(1, -1, 1, received=0, in_flight=1, missing=1)
    # Its lease is of version 0, but what was not flushed of version 0 cannot come in any more.
    assert job.ledger.open_groups()[0] == OpenGroup(0, 0, 1, received=1, in_flight=1, missing=0)
    job.ledger.give_back(sender, [late[0].lease_id], 2.0)
    assert job.ledger.open_groups()[1] == OpenGroup(1, -1, -1, received=0, in_flight=0, missing=2)


def test_live_groups_are_of_one_moment(job: Job) -> None:
    sender = job.member()
    first = job.grant(sender, 2)
    job.grant(sender, 1, allowed=2)
    assert job.ledger.live_groups() == ([], job.ledger.open_groups())
    job.ledger.receive(sender, [trajectory(lease) for lease in first], 1.0)
    ready, unfinished = job.ledger.live_groups()
    assert ([one.group_id for one in ready], [one.group_id for one in unfinished]) == ([0], [1])


def test_listing_by_state(job: Job) -> None:
    sender = job.member()
    first, second, _third = job.grant(sender, 3)
    job.ledger.receive(sender, [trajectory(first)], 1.0)
    job.ledger.give_back(sender, [second.lease_id], 1.0)
    by_state = {state: [one.lease_id for one in job.ledger.trajectories(state=state)] for state in LeaseState}
    assert by_state == {
        LeaseState.RECEIVED: [1],
        LeaseState.RETURNED: [2],
        LeaseState.IN_FLIGHT: [3],
        LeaseState.EXPIRED: [],
    }
    assert [one.lease_id for one in job.ledger.trajectories(after=1, limit=1)] == [2]


def test_attempts_are_a_setting(job: Job) -> None:
    job.settings = replace(job.settings, max_attempts=1)
    job.reopen()
    sender = job.member()
    job.grant(sender, 2, allowed=1)
    assert len(job.ledger.expire(job.now)) == 0
    assert len(job.ledger.expire(TTL + 1.0)) == 2
    assert group_counts(job.ledger) == GroupCounts(open=0, ready=0, trained=0, discarded=1)
