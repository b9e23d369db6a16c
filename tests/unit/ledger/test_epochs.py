"""Epochs: compare-and-set, the seal as commit point, adoption, finishing."""

from pathlib import Path

import pytest
from msgspec import structs
from tests.unit.ledger.builders import Job, manifest, record, settings, trajectory

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Manifest, ManifestEntry
from asyncppo.wire.membership import MemberState
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import ManifestGaps, SealRule


@pytest.fixture
def sender(job: Job) -> Envelope:
    return job.member()


def refusal(call, *arguments) -> str:  # type: ignore[no-untyped-def]
    """The reason `call` is refused with."""
    with pytest.raises(LedgerRefusedError) as refused:
        call(*arguments)
    return refused.value.reason


def test_only_one_of_two_coordinators_gets_an_epoch(job: Job, sender: Envelope) -> None:
    assert job.ledger.begin("a", 0, 1.0).epoch == 1
    assert refusal(job.ledger.begin, "b", 0, 1.0) == "EpochTaken"
    view = job.ledger.begin("a", 0, 1.0)
    assert (view.epoch, view.owner, view.open, view.sealed) == (1, "a", True, False)
    assert [member.name for member in view.members] == ["r0"]


def test_an_epoch_that_is_over_is_not_taken_over_when_nothing_is_wanted(job: Job, sender: Envelope) -> None:
    job.ledger.begin("a", 0, 1.0)
    job.ledger.roll_back(1, 1.0)  # while b's call to take it over is on its way
    before = (job.ledger.view(), job.ledger.events())
    assert refusal(job.ledger.begin, "b", 1, 1.0, lambda view: view.open) == "NotWanted"
    assert (job.ledger.view(), job.ledger.events()) == before
    assert refusal(job.ledger.begin, "b", 0, 1.0, lambda view: False) == "EpochTaken"
    assert job.ledger.begin("b", 1, 1.0, lambda view: True).epoch == 2
    assert job.ledger.begin("c", 2, 1.0, lambda view: False).owner == "c", "one that is open goes on"


def test_an_unsealed_epoch_is_rolled_back_by_a_successor(job: Job, sender: Envelope) -> None:
    job.ledger.begin("a", 0, 1.0)
    view = job.ledger.begin("b", 1, 1.0)
    assert (view.epoch, view.owner, view.sealed) == (2, "b", False)
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0) == "EpochTaken"
    assert "epoch_rolled_back" in [event.kind for event in job.ledger.events()]


def test_a_sealed_epoch_is_adopted_as_it_is(job: Job, sender: Envelope) -> None:
    job.member("r1")
    job.ledger.begin("a", 0, 1.0)
    job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0)], ["r1"], 1.0)
    job.publish(1)
    job.reopen()
    view = job.ledger.begin("b", 1, 2.0)
    assert (view.epoch, view.sealed, view.target, view.stepped) == (2, True, 1, True)
    assert ([member.name for member in view.members], view.fenced) == (["r0"], ["r1"])
    assert refusal(job.ledger.finish, 1, "a", ["r0"], [], {}, 2.0) == "EpochTaken"
    assert job.ledger.finish(2, "b", ["r0"], [], {"load": 1.5}, 2.0).announced == 1
    (finished,) = job.ledger.epochs()
    assert job.ledger.epochs(after=finished.epoch) == []
    assert job.ledger.epochs(after=finished.epoch - 1) == [finished]
    assert (finished.epoch, finished.sealed_version, finished.target, finished.members, finished.fenced) == (
        2,
        0,
        1,
        2,
        1,
    )
    assert finished.seconds == {"load": 1.5}


def test_the_learner_ends_an_unsealed_epoch_itself_but_not_a_sealed_one(job: Job, sender: Envelope) -> None:
    job.ledger.begin("a", 0, 1.0)
    assert job.ledger.roll_back(1, 1.0).open is False
    assert job.ledger.roll_back(1, 1.0).open is False
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0) == "EpochTaken"
    job.ledger.begin("a", 1, 1.0)
    job.ledger.seal(2, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0)
    assert refusal(job.ledger.roll_back, 2, 1.0) == "Sealed"
    assert refusal(job.ledger.roll_back, 1, 1.0) == "EpochTaken"


def test_a_sync_moves_the_announced_version(job: Job, sender: Envelope) -> None:
    assert job.sync(sender) == 1
    view = job.ledger.view()
    assert (view.version, view.announced, view.open, view.unannounced, view.sealed_version) == (1, 1, False, False, 0)
    assert view.announced_record == record(1)
    assert job.ledger.members()[0].version == 1
    assert [row.announced for row in job.ledger.versions()] == [True, True]
    assert job.sync(sender) == 2


def test_every_call_may_be_repeated(job: Job, sender: Envelope) -> None:
    job.ledger.begin("a", 0, 1.0)
    sealed = job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0)
    assert job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0) == sealed
    job.publish(1)
    job.ledger.publish(record(1), None, [], [], b"", 1.0)
    finished = job.ledger.finish(1, "a", ["r0"], [], {}, 1.0)
    assert job.ledger.finish(1, "a", ["r0"], [], {}, 1.0) == finished
    assert refusal(job.ledger.finish, 1, "b", ["r0"], [], {}, 1.0) == "EpochTaken"


def test_a_seal_out_of_turn_is_refused(job: Job, sender: Envelope) -> None:
    told = [manifest(sender, 0)]
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], told, [], 1.0) == "EpochTaken"
    job.ledger.begin("a", 0, 1.0)
    assert refusal(job.ledger.seal, 1, "b", 0, ["r0"], told, [], 1.0) == "EpochTaken"
    assert refusal(job.ledger.seal, 1, "a", 1, ["r0"], told, [], 1.0) == "WrongVersion"
    assert refusal(job.ledger.seal, 1, "a", 0, [], told, [], 1.0) == "MembersMissing"
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], [], [], 1.0) == "ManifestMissing"
    older = [structs.replace(told[0], incarnation=0)]
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], older, [], 1.0) == "ManifestMissing"
    assert refusal(job.ledger.finish, 1, "a", ["r0"], [], {}, 1.0) == "NotSealed"
    job.ledger.seal(1, "a", 0, ["r0"], told, [], 1.0)
    assert refusal(job.ledger.seal, 1, "a", 3, ["r0"], told, [], 1.0) == "WrongVersion"
    assert refusal(job.ledger.finish, 1, "a", ["r0"], [], {}, 1.0) == "NotStepped"
    job.publish(1)
    assert refusal(job.ledger.finish, 1, "a", [], [], {}, 1.0) == "MembersMissing"


def test_a_refused_seal_fences_nobody(job: Job, sender: Envelope) -> None:
    job.member("r1")
    job.ledger.begin("a", 0, 1.0)
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], [], ["r1"], 1.0) == "ManifestMissing"
    assert [member.state for member in job.ledger.members()] == [MemberState.READY, MemberState.READY]


def leased(job: Job, sender: Envelope, count: int) -> list[Lease]:
    return job.grant(sender, count)


def test_the_seal_compares_sets(job: Job, sender: Envelope) -> None:
    first, second = leased(job, sender, 2)
    held = [trajectory(first, finished=False), trajectory(second)]
    told = [manifest(sender, 0, held)]
    assert [(key.lease_id, key.index) for key in job.ledger.manifest_gaps(told).unrecorded] == [(1, 0), (2, 0)]
    job.ledger.begin("a", 0, 1.0)
    arguments = (1, "a", 0, ["r0"], told, [], 1.0)
    assert refusal(job.ledger.seal, *arguments) == "ManifestIncomplete"
    job.ledger.receive(sender, held[:1], 1.0)
    job.score_all()
    # As many scored segments as manifest entries, but not the same ones.
    job.ledger.receive(sender, held[1:], 1.0)
    gaps = job.ledger.manifest_gaps(told)
    assert (gaps.unrecorded, [key.lease_id for key in gaps.unscored]) == ([], [2])
    assert refusal(job.ledger.seal, *arguments) == "ManifestIncomplete"
    job.score_all()
    assert job.ledger.manifest_gaps(told) == ManifestGaps([], [], [])
    assert job.ledger.seal(*arguments).sealed


def test_a_manifest_entry_under_another_digest_is_a_conflict(job: Job, sender: Envelope) -> None:
    (lease,) = leased(job, sender, 1)
    job.ledger.receive(sender, [trajectory(lease)], 1.0)
    job.score_all()
    told = [manifest(sender, 0, [trajectory(lease, salt=1)])]
    assert [key.lease_id for key in job.ledger.manifest_gaps(told).conflicting] == [1]
    job.ledger.begin("a", 0, 1.0)
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], told, [], 1.0) == "ManifestIncomplete"


def test_entries_that_can_never_be_accepted_do_not_stand_in_the_way(job: Job, sender: Envelope) -> None:
    given_back, _ = leased(job, sender, 2)
    job.ledger.give_back(sender, [given_back.lease_id], 1.0)
    entries = [ManifestEntry(given_back.lease_id, 0, 3, "00"), ManifestEntry(999, 0, 3, "00")]
    job.ledger.begin("a", 0, 1.0)
    assert job.ledger.seal(1, "a", 0, ["r0"], [Manifest("r0", sender.incarnation, 0, entries)], [], 1.0).sealed


def test_discarded_segments_do_not_stand_in_the_way(job: Job, sender: Envelope) -> None:
    (lease,) = leased(job, sender, 1)
    held = [trajectory(lease, end_reason="environment_timeout")]
    job.ledger.receive(sender, held, 1.0)
    job.ledger.begin("a", 0, 1.0)
    assert job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0, held)], [], 1.0).sealed


def test_what_nobody_lists_must_be_scored_too(job: Job, sender: Envelope) -> None:
    other = job.member("r1")
    (lease,) = job.grant(other, 1)
    job.ledger.receive(other, [trajectory(lease)], 1.0)
    job.ledger.fence("r1", "gone", 1.0)
    job.ledger.begin("a", 0, 1.0)
    assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0) == "ManifestIncomplete"
    job.score_all()
    assert job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0).sealed


def test_a_fenced_members_manifest_does_not_count(job: Job, sender: Envelope) -> None:
    other = job.member("r1")
    (lease,) = job.grant(other, 1)
    lost = manifest(other, 0, [trajectory(lease)])
    job.ledger.begin("a", 0, 1.0)
    view = job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0), lost], ["r1"], 1.0)
    assert (view.sealed, view.fenced) == (True, ["r1"])
    assert [member.state for member in job.ledger.members()] == [MemberState.READY, MemberState.FENCED]


def test_a_member_that_restarts_in_the_epoch_is_out_of_it(job: Job, sender: Envelope) -> None:
    job.member("r1")
    job.ledger.begin("a", 0, 1.0)
    again = job.member("r1")
    view = job.ledger.view()
    assert ([member.name for member in view.members], view.fenced) == (["r0"], ["r1"])
    # It is not fenced a second time: the coordinator gave up on its predecessor.
    job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0)], ["r1"], 1.0)
    assert job.ledger.ready(again, 0, "published-0", 1.0) is MemberState.JOINING


@pytest.mark.parametrize("rule", [SealRule.RECORDED, SealRule.NONE])
def test_columns_that_publish_first(tmp_path: Path, rule: SealRule) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=rule))
    job.publish(0)
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    held = [trajectory(lease, finished=False)]
    job.publish(1)
    assert job.ledger.view().unannounced
    job.ledger.begin("a", 0, 1.0)
    told = [manifest(sender, 0, held)] if rule.flushes else []
    if rule.flushes:
        assert refusal(job.ledger.seal, 1, "a", 0, ["r0"], told, [], 1.0) == "ManifestIncomplete"
        job.ledger.receive(sender, held, 1.0)
    view = job.ledger.seal(1, "a", 0, ["r0"], told, [], 1.0)
    assert (view.target, view.stepped) == (1, True)
    job.ledger.finish(1, "a", ["r0"], [], {}, 1.0)
    assert job.ledger.view().sealed_version == 0
    job.check()
    job.ledger.close()


def test_versions_that_were_skipped_are_sealed(tmp_path: Path) -> None:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.RECORDED))
    job.publish(0)
    sender = job.member()
    job.publish(1)
    job.publish(2)
    job.ledger.begin("a", 0, 1.0)
    job.ledger.seal(1, "a", 0, ["r0"], [manifest(sender, 0)], [], 1.0)
    view = job.ledger.finish(1, "a", ["r0"], [], {}, 1.0)
    assert (view.announced, view.sealed_version) == (2, 1)
    job.ledger.close()


def test_a_sync_without_members_can_be_sealed(job: Job) -> None:
    job.ledger.begin("a", 0, 1.0)
    job.ledger.seal(1, "a", 0, [], [], [], 1.0)
    job.publish(1)
    assert job.ledger.finish(1, "a", [], [], {}, 1.0).announced == 1
