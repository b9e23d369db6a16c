"""A rollout in the model: its guard decides, this does what the rollout's program would do.

Owns sampling, uploads, heartbeats and crashes of a rollout. Does not own which command is obeyed (`MemberGuard`).
"""

from collections.abc import Iterator

import msgspec

from asyncppo.errors import RefusedError
from asyncppo.sync.books import Rules
from asyncppo.sync.columns import SealRule
from asyncppo.sync.events import ToMember
from asyncppo.sync.exploration import learner
from asyncppo.sync.exploration.world import (
    JOB,
    NAMES,
    Fate,
    InHand,
    Process,
    StrayReady,
    StrayReply,
    StrayUpload,
    Upload,
    World,
    digest_of,
)
from asyncppo.sync.member import Advice, MemberGuard, Mode
from asyncppo.wire.experience import Manifest, ManifestEntry
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Ready
from asyncppo.wire.syncing import Flush, Load, Loaded, Pause, Paused, Resumed

Move = tuple[str, World]
Said = Paused | Manifest | Loaded | Resumed | RefusedError
NEVER, NOW, LATER = 0.0, 0.0, 2.0


# --- commands of coordinators -----------------------------------------------------------------------------------------------------
def command(world: World, call: ToMember, rules: Rules) -> Iterator[tuple[str, World, Said]]:
    """(what happens, the world after, the answer): one way, or several for a Flush, whose upload has fates of its own."""
    process = at(world, call.member.url)
    if process is None:
        yield "refused", world, RefusedError(0, "Gone", "nobody listens there")
        return
    guard, message = process.guard, call.message
    try:
        if isinstance(message, Pause):
            guard = guard.pause(message, NOW)
            yield "paused", put(world, process, guard=guard), Paused(guard.envelope(), guard.version, 0.0)
        elif isinstance(message, Flush):
            guard.flush(message)
            yield from _flush(world, process, message, rules)
        elif isinstance(message, Load):
            guard, needed = guard.load(message)
            guard = guard.loaded(message.record.version) if needed else guard
            after = put(world, process, guard=guard, held=_kept(world, process))
            yield "loaded", after, Loaded(guard.envelope(), guard.version, "", 0.0, 0.0)
        else:
            guard = guard.resume(message)
            yield "resumed", put(world, process, guard=guard), Resumed(guard.envelope(), guard.version)
    except RefusedError as refused:
        yield "refused", world, refused


def _kept(world: World, process: Process) -> tuple[InHand, ...]:
    """Told to load after a seal: where versions are flushed, the ledger has what was handed over."""
    return process.held if world.books.rule is SealRule.NONE else ()


def _flush(world: World, process: Process, message: Flush, rules: Rules) -> Iterator[tuple[str, World, Said]]:
    """Upload, then answer. The model's rollout answers whatever became of its upload: the learner must not trust it."""
    mine = tuple(item for item in process.held if item.version == message.version)
    entries = [ManifestEntry(item.lease_id, item.index, 1, digest_of(item)) for item in mine]
    manifest = Manifest(process.guard.name, process.guard.incarnation, message.version, entries)
    for words, after, _ in _sent(world, process, mine, rules):
        yield f"flushed {len(mine)} segments{words}", after, manifest


def _sent(
    world: World, process: Process, pieces: tuple[InHand, ...], rules: Rules
) -> Iterator[tuple[str, World, bool]]:
    """(what became of it, the world after, whether the rollout got an answer that took it)."""
    if not pieces:
        yield "", world, True
        return
    upload = Upload(process.guard.envelope(), pieces)
    after, refused = learner.receive(world, upload, rules)
    if isinstance(refused, RefusedError):
        yield f", refused: {refused.reason}", after, False
        return
    yield "", _dropped(after, process, refused), True
    if world.faults:
        fewer = msgspec.structs.replace(world, faults=world.faults - 1)
        stray = StrayUpload(upload)
        strays = tuple(sorted((*world.strays, stray), key=repr))
        yield ", but the upload is delayed", msgspec.structs.replace(fewer, strays=strays), False
        yield (
            ", but the upload's answer is lost",
            msgspec.structs.replace(after, faults=world.faults - 1),
            False,
        )


def _dropped(world: World, process: Process, refused: tuple[InHand, ...]) -> World:
    """What was refused is given up and counted, unless it has ended already."""
    if not refused:
        return world
    gone = {(item.lease_id, item.index) for item in refused}
    fates = tuple(
        msgspec.structs.replace(fate, discarded=1) if (fate.lease_id, fate.index) in gone and fate.ends == 0 else fate
        for fate in world.fates
    )
    held = tuple(item for item in process.held if item not in refused)
    return put(msgspec.structs.replace(world, fates=fates), process, held=held)


# --- what a rollout does by itself ------------------------------------------------------------------------------------------------
def sample(world: World, process: Process) -> Move:
    """One more segment."""
    index = sum(fate.lease_id == process.lease for fate in world.fates)
    piece = InHand(process.lease, index, process.guard.version)
    live = any(lease.lease_id == process.lease and lease.live for lease in world.books.leases)
    fate = Fate(
        piece.lease_id,
        index,
        piece.version,
        process.url,
        late=world.books.sealed_version >= piece.version,
        discarded=0 if live else 1,
    )
    after = put(world, process, held=(*process.held, piece))
    fates = tuple(sorted((*world.fates, fate), key=lambda each: (each.lease_id, each.index)))
    who = NAMES.index(process.guard.name)
    left = tuple(count - (number == who) for number, count in enumerate(world.samples))
    label = f"samples segment {index} of lease {process.lease} under version {piece.version}"
    return label, msgspec.structs.replace(after, fates=fates, samples=left)


def upload(world: World, process: Process, rules: Rules) -> Iterator[Move]:
    """The trajectory is finished: hand it over, and let go of it when the answer says it is durable."""
    if process.held and process.guard.mode is not Mode.OUT:
        for words, after, answered in _sent(world, process, process.held, rules):
            if answered:
                yield f"uploads its trajectory{words}", put(after, process, held=(), lease=0)
            elif after != world:
                yield f"uploads its trajectory{words}", after


def report(world: World, process: Process, rules: Rules, *, driven: bool) -> Iterator[Move]:
    """Join, or send a heartbeat and do as the answer says. A pause runs out whenever nobody drives its epoch, and else as a fault."""
    guard = process.guard
    if guard.mode is Mode.OUT:
        world, answer = learner.join(world, Join(JOB, guard.name, process.url), rules)
        yield "joins", put(world, process, guard=guard.joined(answer))
        return
    beat = Heartbeat(envelope=guard.envelope(), version=guard.version, lease_ids=[])
    yield from _beat(world, process, beat, rules, "sends a heartbeat")
    if guard.pause_expired(LATER) and world.books.open and (world.faults or not driven):
        expired = msgspec.structs.replace(beat, pause_expired=True)
        paid = msgspec.structs.replace(world, faults=world.faults - 1) if driven else world
        yield from _beat(paid, process, expired, rules, "finds its pause expired and asks")


def _beat(world: World, process: Process, beat: Heartbeat, rules: Rules, label: str) -> Iterator[Move]:
    after, reply = learner.heartbeat(world, beat)
    told, advice = _heard(after, process, reply, beat.envelope.incarnation)
    if advice is Advice.ANNOUNCE:
        yield from _announce(told, process)
    elif told != world:
        yield f"{label}: {advice}", told
    if after.faults:
        stray = StrayReply(process.url, beat.envelope.incarnation, reply)
        strays = tuple(sorted((*after.strays, stray), key=repr))
        yield (
            f"{label}, the answer is slow",
            msgspec.structs.replace(after, strays=strays, faults=after.faults - 1),
        )


def _announce(world: World, process: Process) -> Iterator[Move]:
    guard = find(world, process.url).guard
    message = Ready(guard.envelope(), guard.version, "")
    after, reply = learner.ready(world, message)
    told, advice = _heard(after, process, reply, guard.incarnation)
    yield f"says it is ready: {advice}", told
    if world.faults:
        fewer = msgspec.structs.replace(world, faults=world.faults - 1)
        strays = tuple(sorted((*world.strays, StrayReady(message)), key=repr))
        yield "says it is ready, the answer is lost", msgspec.structs.replace(after, faults=fewer.faults)
        yield "says it is ready, which is delayed", msgspec.structs.replace(fewer, strays=strays)


def _heard(world: World, process: Process, reply: HeartbeatReply, incarnation: int) -> tuple[World, Advice]:
    """Take in an answer, and do as it advises."""
    guard, advice = find(world, process.url).guard.heard(reply, incarnation, NOW)
    if advice is Advice.LOAD and reply.record is not None:
        guard = guard.loaded(reply.record.version)
        return put(world, process, guard=guard, held=_kept(world, process)), advice
    if advice is Advice.REJOIN and process.replaced:
        return without(world, process), advice
    if advice is Advice.REJOIN:
        return put(world, process, guard=guard, lease=0), advice
    return put(world, process, guard=guard), advice


def late_reply(world: World, stray: StrayReply) -> World:
    """An answer that comes long after its heartbeat."""
    process = at(world, stray.url)
    return _heard(world, process, stray.reply, stray.incarnation)[0] if process is not None else world


# --- crashes ----------------------------------------------------------------------------------------------------------------------
def crashed(world: World, process: Process) -> World:
    """The process is gone with all it held; a new one listens at the same address."""
    guard = MemberGuard(job_uid=JOB, name=process.guard.name)
    return put(world, process, guard=guard, lease=0, held=())


def replaced(world: World, process: Process) -> World:
    """A new process takes the name and another address; the old one lives on, and reaches the learner again some time."""
    fresh = Process(MemberGuard(job_uid=JOB, name=process.guard.name), f"{process.guard.name}9", 0)
    world = put(world, process, replaced=True)
    return msgspec.structs.replace(world, processes=(*world.processes, fresh))


def find(world: World, url: str) -> Process:
    """The process that listens at `url`."""
    return next(process for process in world.processes if process.url == url)


def at(world: World, url: str) -> Process | None:
    """The same, if there is one."""
    return next((process for process in world.processes if process.url == url), None)


def put(world: World, process: Process, **changes: object) -> World:
    """Change a process (found by its address, for it may have changed since)."""
    processes = tuple(
        msgspec.structs.replace(each, **changes) if each.url == process.url else each for each in world.processes
    )
    return msgspec.structs.replace(world, processes=processes)


def without(world: World, process: Process) -> World:
    """The process ends; what it held is lost with it."""
    processes = tuple(each for each in world.processes if each.url != process.url)
    return msgspec.structs.replace(world, processes=processes)
