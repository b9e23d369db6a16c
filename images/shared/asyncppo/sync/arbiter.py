"""The learner's side of the protocol as pure functions: the rules by which epochs, members, leases and segments are granted or refused.

Owns the reference form of these rules: small enough to be explored exhaustively (`exploration.py`) and to answer in tests for a
learner. Does not own the job's truth: that is the durable ledger of `asyncppo_runtime.ledger`, which keeps the same rules in SQL and
is compared with these in its tests.

Every function takes the books and a message and returns the new books (and, where there is one, the answer), or raises RefusedError
and changes nothing. Sent again, a message that was carried out answers the same.
"""

from collections.abc import Callable, Iterable

import msgspec

from asyncppo.errors import RefusedError
from asyncppo.sync.books import RULES, Books, Held, Piece, Recorded, Rules, SegmentState
from asyncppo.sync.columns import SealRule
from asyncppo.sync.machine import LIVE
from asyncppo.sync.reasons import Reason
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Joined, Leave, Member, MemberState, Ready
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall, SyncView
from asyncppo.wire.versions import VersionRecord


# --- what is told ---------------------------------------------------------------------------------------------------------------
def view_of(books: Books, record: Callable[[int], VersionRecord]) -> SyncView:
    """The answer to every sync call."""
    members = [member for member in books.members if member.state in LIVE]
    if books.open:
        members = [member for member in members if (member.name, member.incarnation) in books.frozen]
    return SyncView(
        job_uid=books.job_uid,
        column=books.column,
        epoch=books.epoch,
        owner=books.owner,
        open=books.open,
        sealed=books.sealed,
        version=books.version,
        wanted=books.batch or books.stepped,
        stepped=books.stepped,
        members=members,
        record=record(books.published),
        canary=None,
        finished=books.finished,
        failed=books.failed,
    )


def reply_to(books: Books, envelope: Envelope, record: Callable[[int], VersionRecord]) -> HeartbeatReply:
    """What a member is told. An unknown or older incarnation is fenced."""
    member = books.member(envelope.target)
    known = member is not None and member.incarnation == envelope.incarnation
    return HeartbeatReply(
        state=member.state if member is not None and known else MemberState.FENCED,
        epoch=books.epoch,
        syncing=books.open,
        sealed_version=books.sealed_version,
        record=None if books.open else record(books.version),
        finished=books.finished,
    )


# --- epochs ---------------------------------------------------------------------------------------------------------------------
def begin(books: Books, call: Begin) -> Books:
    """Hand out the next epoch, to whoever names the last one first. An unsealed open one is thereby rolled back, a sealed one goes
    on under the new number."""
    if books.finished:
        raise _refused(Reason.FINISHED, "the job is over")
    if books.open and books.owner == call.coordinator and books.epoch == call.expected_epoch + 1:
        return books
    if call.expected_epoch != books.epoch:
        raise _refused(Reason.EPOCH_TAKEN, f"epoch {books.epoch} is handed out already, to {books.owner}")
    if not books.open and not books.batch and not books.stepped:
        raise _refused(Reason.NOT_WANTED, "no step waits for a sync")
    frozen = tuple((member.name, member.incarnation) for member in books.members if member.state in LIVE)
    adopted = books.open and books.sealed
    return _with(
        books,
        epoch=books.epoch + 1,
        owner=call.coordinator,
        open=True,
        sealed=adopted,
        frozen=tuple(item for item in frozen if item in books.frozen) if adopted else frozen,
    )


def score(books: Books, call: SyncCall, rules: Rules = RULES) -> tuple[Books, list[tuple[int, int]]]:
    """Score every segment in the ledger, then compare with the manifests: (books, what is missing). The scores stay in either case;
    with something missing the call is to be refused as ManifestIncomplete."""
    _held(books, call.epoch, call.coordinator)
    if books.sealed:
        return books, []
    books = scored(books)
    return books, rules.missing(books, call.manifests)


def scored(books: Books) -> Books:
    """Every recorded segment is scored (by its own version)."""
    segments = tuple(msgspec.structs.replace(item, state=SegmentState.SCORED) for item in books.segments)
    return _with(books, segments=segments)


def seal(books: Books, call: Seal, rules: Rules = RULES) -> Books:
    """The commit point. Where the version's weights go away with it, nothing in the ledger may be left unscored, whoever it is of:
    a member that is fenced by this very seal may have handed something in since the scoring."""
    _held(books, call.epoch, call.coordinator)
    if books.sealed:
        return books
    if call.version != books.version:
        raise _refused(Reason.WRONG_VERSION, f"version {books.version} is served; the seal is of {call.version}")
    absent = {name for name, _ in books.frozen} - {*call.members, *call.fenced}
    if absent:
        raise _refused(Reason.MEMBERS_MISSING, f"the seal does not say what became of {', '.join(sorted(absent))}")
    if books.rule is not SealRule.NONE:
        # What anyone else may tell (a member that joined meanwhile, one fenced by this very seal) is not asked for.
        staying = {(name, number) for name, number in books.frozen if name not in call.fenced}
        manifests = [each for each in call.manifests if (each.member, each.incarnation) in staying]
        silent = staying - {(each.member, each.incarnation) for each in manifests if each.version == call.version}
        if silent:
            raise _refused(Reason.MANIFEST_MISSING, f"no manifest of {', '.join(sorted(name for name, _ in silent))}")
        missing = rules.missing(books, manifests)
        if missing:
            raise incomplete(missing)
    if books.rule is SealRule.SCORED:
        unscored = [(item.lease_id, item.index) for item in books.segments if item.state is SegmentState.UNSCORED]
        if unscored:
            raise incomplete(unscored)
    books = _fence_frozen(books, call.fenced)
    return _with(books, sealed=True, sealed_version=books.version)


def may_step(books: Books, call: SyncCall) -> bool:
    """Whether the optimizer steps now (or has not yet): False when the target is published already."""
    _held(books, call.epoch, call.coordinator)
    if books.stepped:
        return False
    if books.rule is SealRule.SCORED and not books.sealed:
        raise _refused(Reason.NOT_SEALED, "this column seals a version before it steps away from it")
    return True


def published(books: Books, call: SyncCall) -> Books:
    """The target's row, in one transaction with the batch's trained marks. Call when `may_step` and the weights are in place."""
    return _with(books, published=books.published + 1, batch=False) if may_step(books, call) else books


def finish(books: Books, call: Finish) -> Books:
    """The end of an epoch: forward when sealed, rolled back when not."""
    if not books.open and books.epoch == call.epoch and books.owner == call.coordinator:
        return books
    _held(books, call.epoch, call.coordinator)
    if not books.sealed:
        return _closed(_fence_frozen(books, call.fenced))
    if not books.stepped:
        raise _refused(Reason.NOT_STEPPED, "the version to move to is not published")
    absent = {name for name, _ in books.frozen} - {*call.loaded, *call.fenced}
    if absent:
        raise _refused(Reason.MEMBERS_MISSING, f"the finish does not say what became of {', '.join(sorted(absent))}")
    books = _fence_frozen(books, call.fenced)
    if call.bad_publication:
        books = _with(books, failed=call.bad_publication, finished=True)
    return _closed(books)


def release(books: Books, envelope: Envelope) -> Books:
    """A pause has outlived its time to live: end the epoch it belongs to without a coordinator, if that can be done."""
    if not books.open or envelope.epoch != books.epoch or (envelope.target, envelope.incarnation) not in books.frozen:
        return books
    return books if books.sealed and not books.stepped else _closed(books)


# --- members --------------------------------------------------------------------------------------------------------------------
def join(
    books: Books, message: Join, record: Callable[[int], VersionRecord], rules: Rules = RULES
) -> tuple[Books, Joined]:
    """A new incarnation; nothing more is taken from an older one."""
    number = rules.incarnation(books, message.name)
    member = Member(message.name, number, message.url, MemberState.JOINING)
    others = tuple(other for other in books.members if other.name != message.name)
    members = tuple(sorted((*others, member), key=lambda each: each.name))
    frozen = tuple(item for item in books.frozen if item[0] != message.name or item[1] == number)
    books = _with(books, members=members, frozen=frozen, incarnations=max(books.incarnations, number))
    return books, Joined(number, books.epoch, None if books.open else record(books.version))


def ready(books: Books, message: Ready) -> Books:
    """Loaded. Counts only outside a sync and for the version that is served: a member that became ready inside one would sample
    without being paused."""
    member = _current(books, message.envelope)
    if books.open or message.version != books.version or member.state is not MemberState.JOINING:
        return books
    return _replaced(books, msgspec.structs.replace(member, state=MemberState.READY, version=message.version))


def heartbeat(books: Books, message: Heartbeat) -> Books:
    """Never refused; an expired pause ends its epoch."""
    return release(books, message.envelope) if message.pause_expired else books


def drain(books: Books, name: str) -> Books:
    """No new leases for this member."""
    member = books.member(name)
    if member is None or member.state is not MemberState.READY:
        return books
    return _replaced(books, msgspec.structs.replace(member, state=MemberState.DRAINING))


def leave(books: Books, message: Leave) -> Books:
    """Good-bye, at an epoch boundary."""
    member = _current(books, message.envelope)
    if books.open and (member.name, member.incarnation) in books.frozen:
        raise _refused(Reason.NOT_READY, "a sync runs; leave when it is over")
    return _replaced(books, msgspec.structs.replace(member, state=MemberState.LEFT))


# --- leases and segments ----------------------------------------------------------------------------------------------------------
def expire(books: Books, lease_id: int) -> Books:
    """End a lease that nobody renewed. The clock stops while an epoch is open."""
    if books.open:
        return books
    leases = tuple(
        msgspec.structs.replace(lease, live=False) if lease.lease_id == lease_id else lease for lease in books.leases
    )
    return _with(books, leases=leases)


def receive(
    books: Books, envelope: Envelope, pieces: Iterable[Piece], rules: Rules = RULES
) -> tuple[Books, list[Piece]]:
    """Take segments in: (books, those refused). The whole is refused for a sender that is no member."""
    _current(books, envelope)
    refused: list[Piece] = []
    segments = list(books.segments)
    for piece in pieces:
        lease = next((each for each in books.leases if each.lease_id == piece.lease_id), None)
        known = next((each for each in segments if (each.lease_id, each.index) == (piece.lease_id, piece.index)), None)
        if known is not None and known.digest == piece.digest:
            continue
        if lease is None or lease.member != envelope.target or known is not None or not rules.live(lease):
            refused.append(piece)
            continue
        if piece.version > books.sealed_version or _before_the_seal(books, lease, envelope):
            segments.append(Recorded(piece.lease_id, piece.index, piece.version, piece.digest))
        else:
            refused.append(piece)
    ordered = tuple(sorted(segments, key=lambda each: (each.lease_id, each.index)))
    return _with(books, segments=ordered), refused


def _before_the_seal(books: Books, lease: Held, envelope: Envelope) -> bool:
    """Whether a segment of a sealed version was surely sampled before the seal: never where versions are flushed; else when its
    lease is still with the incarnation it was granted to, which therefore paused for every seal since."""
    return books.rule is SealRule.NONE and lease.incarnation == envelope.incarnation


def incomplete(missing: list[tuple[int, int]]) -> RefusedError:
    """The refusal of a Score or Seal that would leave segments behind."""
    words = f"{len(missing)} segments are not there or not scored, the first is {missing[0]}"
    return _refused(Reason.MANIFEST_INCOMPLETE, words)


# --- inside ---------------------------------------------------------------------------------------------------------------------
def _held(books: Books, epoch: int, coordinator: str) -> None:
    if not books.open or books.epoch != epoch or books.owner != coordinator:
        raise _refused(
            Reason.EPOCH_TAKEN,
            f"epoch {epoch} of {coordinator} is over; the ledger is at {books.epoch} of {books.owner}",
        )


def _current(books: Books, envelope: Envelope) -> Member:
    member = books.member(envelope.target)
    if (
        member is None
        or member.incarnation != envelope.incarnation
        or member.state in (MemberState.FENCED, MemberState.LEFT)
    ):
        raise _refused(Reason.STALE_INCARNATION, f"{envelope.target}/{envelope.incarnation} is no member; join again")
    return member


def _closed(books: Books) -> Books:
    """No epoch is open any more; after a seal its members serve the target."""
    if not books.sealed:
        return _with(books, open=False, frozen=())
    books = _with(books, open=False, sealed=False, version=books.published)
    for name, _ in books.frozen:
        member = books.member(name)
        assert member is not None, "frozen members are members"
        books = _replaced(books, msgspec.structs.replace(member, version=books.version))
    return _with(books, frozen=())


def _fence_frozen(books: Books, names: Iterable[str]) -> Books:
    """Fence members of the open epoch, in the incarnations frozen at its begin; others of these names are not meant."""
    fenced = set(names)
    for member in books.members:
        if member.name in fenced and (member.name, member.incarnation) in books.frozen:
            books = _replaced(books, msgspec.structs.replace(member, state=MemberState.FENCED))
    return _with(books, frozen=tuple(item for item in books.frozen if item[0] not in fenced))


def _replaced(books: Books, member: Member) -> Books:
    return _with(books, members=tuple(member if each.name == member.name else each for each in books.members))


def _with(books: Books, **changes: object) -> Books:
    return msgspec.structs.replace(books, **changes)


def _refused(reason: Reason, message: str) -> RefusedError:
    return RefusedError(409, reason.value, message)
