"""The learner in the model: the reference rules, the parameters in its memory, and the model's own count of fates.

Owns what a message to the learner changes. Does not own the rules (`arbiter.py`).
"""

import contextlib

import msgspec

from asyncppo.errors import RefusedError
from asyncppo.sync import arbiter
from asyncppo.sync.books import Books, Piece, Rules, SegmentState
from asyncppo.sync.columns import Phase, SealRule
from asyncppo.sync.events import ToLearner
from asyncppo.sync.exploration.world import OLD, Fate, InHand, Upload, World, digest_of, record_of
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Joined, Ready
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall, SyncView

Answered = tuple[World, SyncView | RefusedError]


def call(world: World, command: ToLearner, rules: Rules) -> Answered:
    """A coordinator's call: what it leaves behind, and the answer."""
    try:
        world = _carry_out(world, command, rules)
    except RefusedError as refused:
        return world, refused
    if command.phase is Phase.SCORE and isinstance(command.message, SyncCall) and not world.books.sealed:
        missing = rules.missing(world.books, command.message.manifests)
        if missing:
            return world, arbiter.incomplete(missing)
    return world, view(world)


def view(world: World) -> SyncView:
    """GET /v1/sync."""
    return arbiter.view_of(world.books, record_of)


def _carry_out(world: World, command: ToLearner, rules: Rules) -> World:
    books, message = world.books, command.message
    if isinstance(message, Begin):
        return _with(world, books=arbiter.begin(books, message))
    if isinstance(message, Seal):
        return _sealed(world, arbiter.seal(books, message, rules))
    if isinstance(message, Finish):
        return _with(world, books=arbiter.finish(books, message))
    if command.phase is Phase.SCORE:
        after, _ = arbiter.score(books, message, rules)
        wrong = after != books and world.memory != books.version
        return _with(world, books=after, misscored=world.misscored or wrong)
    if not arbiter.may_step(books, message):
        return world
    stepped = _with(world, memory=books.published + 1)
    if command.phase is Phase.STEP:
        return stepped
    return _with(stepped, books=arbiter.published(books, message), trained=(*world.trained, books.published))


def _sealed(world: World, after: Books) -> World:
    """At a seal every unrecorded segment that is not in the hands of one of its members ends as discarded."""
    if after == world.books:
        return world
    fates = world.fates
    if after.rule is not SealRule.NONE:
        kept = {
            (item.lease_id, item.index)
            for process in world.processes
            if (process.guard.name, process.guard.incarnation) in after.frozen
            for item in process.held
        }
        fates = tuple(
            msgspec.structs.replace(fate, discarded=1)
            if fate.ends == 0 and fate.version <= after.sealed_version and (fate.lease_id, fate.index) not in kept
            else fate
            for fate in fates
        )
    return _with(world, books=after, fates=fates)


def receive(world: World, upload: Upload, rules: Rules) -> tuple[World, tuple[InHand, ...] | RefusedError]:
    """An upload: the pieces refused, or the refusal of it all."""
    pieces = [Piece(item.lease_id, item.index, item.version, digest_of(item)) for item in upload.pieces]
    books = world.books
    try:
        after, refused = arbiter.receive(books, upload.envelope, pieces, rules)
    except RefusedError as error:
        return world, error
    before = {(item.lease_id, item.index) for item in books.segments}
    new = {(item.lease_id, item.index) for item in after.segments} - before
    fates = tuple(_taken(fate, world) if (fate.lease_id, fate.index) in new else fate for fate in world.fates)
    if books.rule is not SealRule.SCORED:
        after = arbiter.scored(after)
    gone = {(piece.lease_id, piece.index) for piece in refused}
    return (
        _with(world, books=after, fates=fates),
        tuple(item for item in upload.pieces if (item.lease_id, item.index) in gone),
    )


def _taken(fate: Fate, world: World) -> Fate:
    return msgspec.structs.replace(
        fate,
        taken=fate.taken + 1,
        taken_late=fate.taken_late or fate.version <= world.books.sealed_version,
        weightless=fate.weightless or (world.retired and fate.version == OLD),
    )


def join(world: World, message: Join, rules: Rules) -> tuple[World, Joined]:
    """POST /v1/members/join."""
    books, answer = arbiter.join(world.books, message, record_of, rules)
    return _with(world, books=books), answer


def ready(world: World, message: Ready) -> tuple[World, HeartbeatReply]:
    """POST /v1/members/ready."""
    with contextlib.suppress(RefusedError):
        world = _with(world, books=arbiter.ready(world.books, message))
    return world, arbiter.reply_to(world.books, message.envelope, record_of)


def heartbeat(world: World, message: Heartbeat) -> tuple[World, HeartbeatReply]:
    """POST /v1/members/heartbeat."""
    world = _with(world, books=arbiter.heartbeat(world.books, message))
    return world, arbiter.reply_to(world.books, message.envelope, record_of)


def restarted(world: World) -> World:
    """What was only in memory is gone; the newest published version is loaded again."""
    return _with(world, memory=world.books.published)


def retired(world: World) -> World:
    """The weights of version 0 are let go of at the first moment at which the rules say that nobody can need them."""
    books = world.books
    needed = (
        books.sealed_version < OLD
        or any(item.state is SegmentState.UNSCORED for item in books.segments)
        or (books.rule is SealRule.NONE and any(lease.live for lease in books.leases))
    )
    return world if needed or world.retired else _with(world, retired=True)


def _with(world: World, **changes: object) -> World:
    return msgspec.structs.replace(world, **changes)
