"""One moment of the whole system, and what must be true of it.

Owns the composed state and its invariants. Does not own how one moment follows from another (`moves.py`).

Simplifications, each of which leaves out no order of events that matters:
- A call and its answer are one move. What may come between the two only delays what the caller does next, which the order of moves
  covers; a call whose answer is lost, that arrives twice, or long after its sender gave up, is a fault (`moves.py`).
- One version is left behind: 0 → 1. Each rollout holds one lease, and few segments are sampled in all.
- A timer may run out at any time, for it is the order of events that counts. Where that is an untimely one, it is a fault.
"""

from collections.abc import Iterator

import msgspec

from asyncppo.sync.books import Books, SegmentState
from asyncppo.sync.columns import SealRule
from asyncppo.sync.events import Command
from asyncppo.sync.machine import State
from asyncppo.sync.member import MemberGuard, Mode
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.membership import HeartbeatReply, Member, MemberState, Ready
from asyncppo.wire.syncing import Flush, Load, Pause, Resume
from asyncppo.wire.versions import VersionRecord

JOB = "job"
NAMES = ("A", "B")
OLD, NEW = 0, 1


class InHand(msgspec.Struct, frozen=True):
    """A segment a rollout keeps until it knows what became of it."""

    lease_id: int
    index: int
    version: int


class Process(msgspec.Struct, frozen=True):
    """A rollout: its guard, where it listens, the lease it samples for (0: none), what it holds. `replaced`: another process has
    taken its name; it lives on behind a partition until it learns of that."""

    guard: MemberGuard
    url: str
    lease: int
    held: tuple[InHand, ...] = ()
    replaced: bool = False


class Coordinator(msgspec.Struct, frozen=True):
    """A coordinator: the machine's state and the calls it has yet to make."""

    state: State
    pending: tuple[Command, ...]


class Upload(msgspec.Struct, frozen=True, tag=True):
    """Segments on their way to the learner."""

    envelope: Envelope
    pieces: tuple[InHand, ...]


class StrayCall(msgspec.Struct, frozen=True, tag=True):
    """A coordinator's call that is still in the network though its sender waits no longer."""

    call: Command


class StrayUpload(msgspec.Struct, frozen=True, tag=True):
    """An upload likewise."""

    upload: Upload


class StrayReady(msgspec.Struct, frozen=True, tag=True):
    """A Ready likewise."""

    message: Ready


class StrayReply(msgspec.Struct, frozen=True, tag=True):
    """The learner's answer to a heartbeat, late."""

    url: str
    incarnation: int
    reply: HeartbeatReply


Stray = StrayCall | StrayUpload | StrayReady | StrayReply


class Fate(msgspec.Struct, frozen=True):
    """What became of one sampled segment; kept by the model, known to no program. late: sampled after its version was sealed.

    url: the process that sampled it. taken: times the ledger took it in as new. taken_late: any of them after the seal. discarded:
    times it was given up for a reason. weightless: taken when its version's weights were gone.
    """

    lease_id: int
    index: int
    version: int
    url: str
    late: bool
    taken: int = 0
    taken_late: bool = False
    discarded: int = 0
    weightless: bool = False

    @property
    def ends(self) -> int:
        """How often it has ended: once is right."""
        return self.taken + self.discarded


class World(msgspec.Struct, frozen=True, kw_only=True):
    """books: the durable ledger. memory: version of the parameters in the learner's memory. faults, samples (of each
    rollout): what is left of them."""

    books: Books
    coordinators: tuple[Coordinator, ...]
    processes: tuple[Process, ...]
    faults: int
    samples: tuple[int, ...]
    memory: int = OLD
    strays: tuple[Stray, ...] = ()
    fates: tuple[Fate, ...] = ()
    trained: tuple[int, ...] = ()
    misscored: bool = False
    retired: bool = False


def first_world(
    column: str, faults: int, samples: tuple[int, ...], first: Books, coordinators: tuple[Coordinator, ...]
) -> World:
    """Two rollouts, ready and sampling under version 0; a step waits for a sync."""
    processes = tuple(
        Process(
            MemberGuard(
                job_uid=JOB, name=member.name, incarnation=member.incarnation, version=OLD, mode=Mode.RUNNING, over=0
            ),
            member.url,
            lease.lease_id,
        )
        for member, lease in zip(first.members, first.leases, strict=True)
    )
    return World(books=first, coordinators=coordinators, processes=processes, faults=faults, samples=samples)


def record_of(version: int) -> VersionRecord:
    """A record of the model; only its number matters."""
    return VersionRecord(
        version=version,
        parent=version - 1,
        lineage=0,
        train_hash=f"t{version}",
        published_hash=f"p{version}",
        file_size=0,
        file_sha256="",
    )


def digest_of(piece: InHand) -> str:
    """A segment's digest: nobody alters tokens in this model."""
    return f"{piece.lease_id}/{piece.index}"


def broken(world: World) -> Iterator[tuple[str, str]]:
    """(invariant, what is wrong) for each that does not hold.

    sealed-means-closed: no token of a sealed version is taken: none that was sampled after the seal, and where versions are flushed
    none that was not recorded before it. ends-once: every sampled token ends taken or discarded, exactly once; where versions are
    flushed, by the time of the seal. scored-by-its-own: segments are scored while the weights of their version are there.
    trained-once: no version is stepped from twice.
    """
    books = world.books
    flushes = books.rule is not SealRule.NONE
    for fate in world.fates:
        name = f"segment {fate.index} of lease {fate.lease_id} (version {fate.version}, by {fate.url})"
        if fate.taken and fate.late:
            yield "sealed-means-closed", f"{name} was sampled after its version was sealed, and taken"
        if flushes and fate.taken_late:
            yield "sealed-means-closed", f"{name} was taken after its version was sealed"
        if fate.ends > 1:
            yield "ends-once", f"{name} ended {fate.ends} times: taken {fate.taken}, discarded {fate.discarded}"
        if flushes and fate.version <= books.sealed_version and fate.ends == 0 and not fate.late:
            yield "ends-once", f"{name} was neither taken nor discarded when its version was sealed"
        if fate.weightless:
            yield "scored-by-its-own", f"{name} was taken after the weights of its version were let go"
    if world.misscored:
        yield "scored-by-its-own", "a segment was scored with the weights of another version"
    unscored = [item for item in books.segments if item.state is SegmentState.UNSCORED]
    if books.rule is SealRule.SCORED and any(item.version <= books.sealed_version for item in unscored):
        yield "ends-once", "a version was sealed with a segment unscored"
    if len(set(world.trained)) < len(world.trained):
        yield "trained-once", f"steps were taken from versions {list(world.trained)}"


def done(world: World) -> bool:
    """Whether the sync is over and all is well: everybody samples under version 1, every token has ended and what was taken is
    scored."""
    books = world.books
    if books.open or books.version != NEW or any(item.state is SegmentState.UNSCORED for item in books.segments):
        return False
    alive = [process for process in world.processes if not process.replaced]
    return all(_serves(process, books.member(process.guard.name)) for process in alive) and all(
        fate.ends == 1 for fate in world.fates
    )


def at_rest(world: World) -> bool:
    """Whether nothing of this sync is left that could still go wrong: what follows is the next one's beginning."""
    return not world.strays and not any(process.held or process.replaced for process in world.processes)


def _serves(process: Process, member: Member | None) -> bool:
    return (
        process.guard.mode is Mode.RUNNING
        and process.guard.version == NEW
        and member is not None
        and member.state is MemberState.READY
        and member.incarnation == process.guard.incarnation
    )


MemberCall = Pause | Flush | Load | Resume
