"""The learner's rules in reference form: who gets an epoch, what a seal demands, what is taken in."""

import pytest
from msgspec.structs import replace
from tests.unit.sync.builders import JOB, envelope, member, record

from asyncppo.errors import RefusedError
from asyncppo.sync import arbiter
from asyncppo.sync.books import Books, Held, Piece, SegmentState
from asyncppo.wire.experience import Manifest, ManifestEntry
from asyncppo.wire.membership import Heartbeat, Join, Leave, MemberState, Ready
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall

NAMES = ["a", "b"]


def books(column: str = "Barrier") -> Books:
    members = (member("a"), member("b", 2))
    return Books(
        job_uid=JOB,
        column=column,
        batch=True,
        incarnations=2,
        members=members,
        leases=(Held(1, "a", 1), Held(2, "b", 2)),
    )


def begun(column: str = "Barrier", who: str = "c0") -> Books:
    return arbiter.begin(books(column), Begin(JOB, who, 0))


def call(epoch: int = 1, who: str = "c0", manifests: tuple[Manifest, ...] = ()) -> SyncCall:
    return SyncCall(JOB, who, epoch, list(manifests))


def manifest(name: str, *entries: tuple[int, int]) -> Manifest:
    listed = [ManifestEntry(lease, index, 1, f"{lease}/{index}") for lease, index in entries]
    return Manifest(name, NAMES.index(name) + 1, 0, listed)


def seal(
    members: tuple[str, ...] = ("a", "b"),
    fenced: tuple[str, ...] = (),
    manifests: tuple[Manifest, ...] | None = None,
    version: int = 0,
) -> Seal:
    told = tuple(manifest(name) for name in members) if manifests is None else manifests
    return Seal(JOB, "c0", 1, version, list(members), list(told), list(fenced))


def finish(loaded: tuple[str, ...] = ("a", "b"), fenced: tuple[str, ...] = (), bad: str = "") -> Finish:
    return Finish(JOB, "c0", 1, list(loaded), list(fenced), {}, bad)


def piece(lease: int, index: int, version: int = 0) -> Piece:
    return Piece(lease, index, version, f"{lease}/{index}")


def reason(function, *arguments) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(RefusedError) as refused:
        function(*arguments)
    return refused.value.reason


def of(one: Books, name: str, incarnation: int, pieces: list[Piece]) -> tuple[Books, list[Piece]]:
    return arbiter.receive(one, envelope(one.epoch, name, incarnation), pieces)


def test_an_epoch_goes_to_the_first_who_asks_and_asking_again_is_no_other() -> None:
    one = begun()
    assert (one.epoch, one.owner, one.open, one.frozen) == (1, "c0", True, (("a", 1), ("b", 2)))
    assert arbiter.begin(one, Begin(JOB, "c0", 0)) == one
    assert reason(arbiter.begin, one, Begin(JOB, "c1", 0)) == "EpochTaken"
    assert reason(arbiter.begin, replace(books(), batch=False), Begin(JOB, "c0", 0)) == "NotWanted"
    assert reason(arbiter.begin, replace(books(), finished=True), Begin(JOB, "c0", 0)) == "Finished"


def test_a_successor_rolls_back_or_adopts() -> None:
    after = arbiter.begin(begun(), Begin(JOB, "c1", 1))
    assert (after.epoch, after.owner, after.sealed) == (2, "c1", False)
    sealed = arbiter.seal(begun(), seal())
    after = arbiter.begin(sealed, Begin(JOB, "c1", 1))
    assert (after.epoch, after.owner, after.sealed) == (2, "c1", True)
    assert reason(arbiter.finish, after, finish()) == "EpochTaken"


def test_only_its_owner_may_drive_an_epoch() -> None:
    one = begun()
    assert reason(arbiter.score, one, call(who="c1")) == "EpochTaken"
    assert reason(arbiter.may_step, one, call(epoch=2)) == "EpochTaken"
    assert reason(arbiter.seal, replace(one, owner="c1"), seal()) == "EpochTaken"


def test_a_seal_says_what_became_of_everybody() -> None:
    one = begun()
    assert reason(arbiter.seal, one, seal(members=("a",))) == "MembersMissing"
    assert reason(arbiter.seal, one, seal(manifests=(manifest("a"),))) == "ManifestMissing"
    assert reason(arbiter.seal, one, seal(version=3)) == "WrongVersion"
    after = arbiter.seal(one, seal(("a",), ("b",)))
    assert (after.sealed, after.sealed_version, after.frozen) == (True, 0, (("a", 1),))
    assert [each.state for each in after.members] == [MemberState.READY, MemberState.FENCED]
    assert arbiter.seal(after, seal(("a",), ("b",))) == after


def test_a_seal_wants_each_flushed_segment_not_as_many() -> None:
    one, refused = of(begun(), "b", 2, [piece(2, 0)])
    assert refused == []
    told = (manifest("a", (1, 0)), manifest("b"))
    after, missing = arbiter.score(one, call(manifests=told))
    assert missing == [(1, 0)]
    assert [item.state for item in after.segments] == [SegmentState.SCORED]
    assert reason(arbiter.seal, after, seal(manifests=told)) == "ManifestIncomplete"
    one, _ = of(after, "a", 1, [piece(1, 0)])
    assert reason(arbiter.seal, one, seal(manifests=told)) == "ManifestIncomplete"
    one, missing = arbiter.score(one, call(manifests=told))
    assert missing == []
    assert arbiter.seal(one, seal(manifests=told)).sealed


def test_another_digest_is_another_segment() -> None:
    one, _ = of(begun("Overlapped"), "a", 1, [piece(1, 0)])
    wrong = Manifest("a", 1, 0, [ManifestEntry(1, 0, 1, "of other ids")])
    assert reason(arbiter.seal, one, seal(manifests=(wrong, manifest("b")))) == "ManifestIncomplete"
    after, refused = of(one, "a", 1, [Piece(1, 0, 0, "of other ids")])
    assert (after, len(refused)) == (one, 1)


def test_what_a_fenced_member_hands_in_after_the_scoring_holds_the_barriers_seal() -> None:
    one, _ = arbiter.score(begun(), call(manifests=(manifest("b"),)))
    one, _ = of(one, "a", 1, [piece(1, 0)])
    last = seal(("b",), ("a",))
    assert reason(arbiter.seal, one, last) == "ManifestIncomplete"
    one, _ = arbiter.score(one, call(manifests=(manifest("b"),)))
    assert arbiter.seal(one, last).sealed


def test_entries_of_ended_leases_are_no_gap() -> None:
    one = begun("Overlapped")
    one = replace(one, leases=(Held(1, "a", 1, live=False), Held(2, "b", 2)))
    assert arbiter.seal(one, seal(manifests=(manifest("a", (1, 0)), manifest("b")))).sealed


def test_the_barrier_seals_before_it_steps() -> None:
    assert reason(arbiter.may_step, begun(), call()) == "NotSealed"
    assert arbiter.may_step(begun("Snapshot"), call())
    sealed = arbiter.seal(begun(), seal())
    stepped = arbiter.published(sealed, call())
    assert (stepped.published, stepped.version, stepped.batch) == (1, 0, False)
    assert not arbiter.may_step(stepped, call())
    assert arbiter.published(stepped, call()) == stepped


def test_a_finish_goes_forward_after_the_seal_and_back_before_it() -> None:
    sealed = arbiter.seal(begun(), seal())
    assert reason(arbiter.finish, sealed, finish()) == "NotStepped"
    stepped = arbiter.published(sealed, call())
    assert reason(arbiter.finish, stepped, finish(loaded=("a",))) == "MembersMissing"
    after = arbiter.finish(stepped, finish(("a",), ("b",)))
    assert (after.open, after.version, after.member("a").version) == (False, 1, 1)  # type: ignore[union-attr]
    assert after.member("b").state is MemberState.FENCED  # type: ignore[union-attr]
    assert arbiter.finish(after, finish(("a",), ("b",))) == after
    back = arbiter.finish(begun(), finish((), ("b",)))
    assert (back.open, back.version, back.batch) == (False, 0, True)
    assert back.member("b").state is MemberState.FENCED  # type: ignore[union-attr]
    bad = arbiter.finish(stepped, finish((), ("a", "b"), "the canary failed"))
    assert (bad.finished, bad.failed) == (True, "the canary failed")


def test_fencing_means_the_incarnation_frozen_at_begin() -> None:
    one, joined = arbiter.join(begun(), Join(JOB, "b", "http://b2"), record)
    assert (joined.incarnation, joined.record) == (3, None)
    assert one.frozen == (("a", 1),)
    after = arbiter.seal(one, seal(("a",), ("b",)))
    assert after.member("b").state is MemberState.JOINING  # type: ignore[union-attr]


def test_nobody_becomes_ready_inside_a_sync() -> None:
    one, joined = arbiter.join(begun(), Join(JOB, "z", "http://z"), record)
    message = Ready(envelope(1, "z", joined.incarnation), 0, "p0")
    assert arbiter.ready(one, message).member("z").state is MemberState.JOINING  # type: ignore[union-attr]
    back = arbiter.finish(one, finish(()))
    assert arbiter.ready(back, message).member("z").state is MemberState.READY  # type: ignore[union-attr]
    other = Ready(envelope(1, "z", joined.incarnation), 7, "p7")
    assert arbiter.ready(back, other).member("z").state is MemberState.JOINING  # type: ignore[union-attr]


def test_an_expired_pause_ends_what_can_be_ended() -> None:
    def expired(one: Books, epoch: int = 1, incarnation: int = 1) -> Books:
        beat = Heartbeat(
            envelope=envelope(epoch, "a", incarnation), version=0, lease_ids=[], paused=True, pause_expired=True
        )
        return arbiter.heartbeat(one, beat)

    assert not expired(begun()).open
    assert expired(begun()).version == 0
    assert reason(arbiter.seal, expired(begun()), seal()) == "EpochTaken"
    assert expired(begun(), epoch=0).open
    assert expired(begun(), incarnation=9).open
    sealed = arbiter.seal(begun(), seal())
    assert expired(sealed) == sealed
    after = expired(arbiter.published(sealed, call()))
    assert (after.open, after.version) == (False, 1)


def test_leaving_waits_for_the_end_of_the_sync() -> None:
    message = Leave(envelope(1, "b", 2))
    assert reason(arbiter.leave, begun(), message) == "NotReady"
    assert arbiter.leave(books(), message).member("b").state is MemberState.LEFT  # type: ignore[union-attr]
    drained = arbiter.drain(books(), "b")
    assert drained.member("b").state is MemberState.DRAINING  # type: ignore[union-attr]
    assert arbiter.begin(drained, Begin(JOB, "c0", 0)).frozen == (("a", 1), ("b", 2))


def test_nothing_is_taken_from_an_older_incarnation_or_a_fenced_one() -> None:
    one, _ = arbiter.join(books(), Join(JOB, "a", "http://a3"), record)
    assert reason(of, one, "a", 1, [piece(1, 0)]) == "StaleIncarnation"
    fenced = arbiter.seal(begun("Snapshot"), seal(("a",), ("b",)))
    assert reason(of, fenced, "b", 2, [piece(2, 0)]) == "StaleIncarnation"


def test_a_sealed_version_takes_nothing_more_where_it_is_flushed() -> None:
    sealed = arbiter.seal(begun("Overlapped"), seal())
    after, refused = of(sealed, "a", 1, [piece(1, 0), piece(1, 1, version=1)])
    assert refused == [piece(1, 0)]
    assert [(item.index, item.version) for item in after.segments] == [(1, 1)]


def test_elsewhere_it_takes_what_its_members_had_sampled_before() -> None:
    sealed = arbiter.seal(begun("Snapshot"), seal(("a",), ("b",)))
    assert of(sealed, "a", 1, [piece(1, 0)])[1] == []
    back, joined = arbiter.join(sealed, Join(JOB, "b", "http://b"), record)
    assert of(back, "b", joined.incarnation, [piece(2, 0)])[1] == [piece(2, 0)]


def test_leases_end_outside_syncs_and_then_take_nothing() -> None:
    assert arbiter.expire(begun(), 1) == begun()
    ended = arbiter.expire(books(), 1)
    assert of(ended, "a", 1, [piece(1, 0)])[1] == [piece(1, 0)]
    assert of(ended, "b", 2, [piece(1, 0)])[1] == [piece(1, 0)]
    known, _ = of(books(), "a", 1, [piece(1, 0)])
    assert of(arbiter.expire(known, 1), "a", 1, [piece(1, 0)])[1] == []


def test_what_members_and_coordinators_are_told() -> None:
    one = begun()
    told = arbiter.reply_to(one, envelope(1, "a", 1), record)
    assert (told.state, told.syncing, told.record, told.epoch) == (MemberState.READY, True, None, 1)
    assert arbiter.reply_to(one, envelope(1, "a", 5), record).state is MemberState.FENCED
    assert arbiter.reply_to(one, envelope(1, "nobody", 1), record).state is MemberState.FENCED
    assert arbiter.reply_to(books(), envelope(0, "a", 1), record).record == record(0)
    joined, _ = arbiter.join(one, Join(JOB, "z", "http://z"), record)
    assert [each.name for each in arbiter.view_of(joined, record).members] == ["a", "b"]
