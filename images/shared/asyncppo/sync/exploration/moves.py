"""How one moment follows from another: every move that anybody can make, and every fault.

Owns the moves. Does not own what they mean for the protocol: coordinators go by `machine.transition`, rollouts by `MemberGuard`, the
learner by `arbiter`.

Faults, each costing one of the budget: an answer is lost; a call arrives after its sender gave up; a call arrives twice; the learner,
a rollout or a coordinator crashes (also while it carries out a call); a rollout is replaced while the old process lives on; a lease
runs out under its holder, a pause while its coordinator lives, a coordinator's patience with one that lives.
Whatever is needed to recover (a restart, a heartbeat, joining again, taking over from the dead) costs nothing.
"""

from collections.abc import Iterator

import msgspec

from asyncppo.errors import RefusedError
from asyncppo.sync import arbiter, machine
from asyncppo.sync.books import RULES, Books, Held, Rules
from asyncppo.sync.columns import MEMBER_PHASES, Phase
from asyncppo.sync.events import (
    Command,
    Event,
    LearnerAnswered,
    LearnerRefused,
    LearnerSilent,
    MemberAnswered,
    MemberRefused,
    MemberSilent,
    ToLearner,
    ToMember,
    Viewed,
    Watch,
)
from asyncppo.sync.exploration import learner
from asyncppo.sync.exploration import rollout as rollouts
from asyncppo.sync.exploration.world import (
    JOB,
    NAMES,
    OLD,
    Coordinator,
    Process,
    Stray,
    StrayCall,
    StrayReady,
    StrayReply,
    StrayUpload,
    World,
    first_world,
)
from asyncppo.wire.membership import Member, MemberState

Move = tuple[str, World]
Outcome = tuple[str, World, Event]


def beginning(column: str, faults: int, samples: tuple[int, ...], min_ready: int = 1) -> World:
    """The first world of a column."""
    members = tuple(
        Member(name, number, f"{name}{number}", MemberState.READY, OLD) for number, name in enumerate(NAMES, 1)
    )
    books = Books(
        job_uid=JOB,
        column=column,
        batch=True,
        incarnations=len(members),
        members=members,
        leases=tuple(Held(number, member.name, member.incarnation) for number, member in enumerate(members, 1)),
    )
    return first_world(column, faults, samples, books, tuple(_fresh(f"c{n}", min_ready) for n in range(2)))


def _fresh(name: str, min_ready: int) -> Coordinator:
    return Coordinator(*machine.start(machine.State(coordinator=name, min_ready=min_ready, pause_seconds=1.0)))


def moves(world: World, rules: Rules = RULES) -> Iterator[Move]:
    """Every (what happens, the world after it)."""
    return ((label, learner.retired(after)) for label, after in _moves(world, rules))


def _moves(world: World, rules: Rules) -> Iterator[Move]:
    only = _history(world, rules)
    if only is not None:
        yield only
        return
    for number, coordinator in enumerate(world.coordinators):
        for command in coordinator.pending:
            if _first_epoch_is_c0s(world, number, command):
                for label, after in _command(world, number, command, rules):
                    yield f"{coordinator.state.coordinator}: {label}", after
        if coordinator.state.phase in MEMBER_PHASES:
            for label, after in _told(world, number, Viewed(learner.view(world)), "looks at the learner meanwhile"):
                yield f"{coordinator.state.coordinator}: {label}", after
    for process in world.processes:
        for label, after in _process(world, process, rules):
            yield f"{process.url}: {label}", after
    for stray in world.strays:
        label, after = _arrival(_without(world, stray), stray, rules)
        yield f"network: {label} arrives late", after
    yield from _leases(world)
    if world.faults:
        yield from _crashes(_with(world, faults=world.faults - 1))


def _history(world: World, rules: Rules) -> Move | None:
    """A message of an epoch or incarnation that is over: it will be refused whenever it comes, and change nothing but its sender.
    So it comes now, before anything else, which spares the search all the orders in which it comes later."""
    for number, coordinator in enumerate(world.coordinators):
        for command in coordinator.pending:
            if isinstance(command, ToLearner) and _over(world, command):
                words, after, event = next(_delivered(_done(world, number, command), command, rules))
                return next(_told(after, number, event, f"{coordinator.state.coordinator}: {_name(command)}: {words}"))
    for stray in world.strays:
        if _outdated(world, stray):
            label, after = _arrival(_without(world, stray), stray, rules)
            return f"network: {label} arrives too late", after
    return None


def _over(world: World, call: ToLearner) -> bool:
    books = world.books
    return call.epoch < books.epoch or (call.epoch == books.epoch and call.message.coordinator != books.owner)


def _outdated(world: World, stray: Stray) -> bool:
    if isinstance(stray, StrayCall):
        if isinstance(stray.call, ToLearner):
            return _over(world, stray.call)
        if isinstance(stray.call, ToMember):
            process = rollouts.at(world, stray.call.member.url)
            return process is None or _older(process, stray.call.epoch, stray.call.member.incarnation)
        return True
    if isinstance(stray, StrayReply):
        process = rollouts.at(world, stray.url)
        return process is None or _older(process, stray.reply.epoch, stray.incarnation)
    envelope = stray.upload.envelope if isinstance(stray, StrayUpload) else stray.message.envelope
    member = world.books.member(envelope.target)
    return member is None or member.incarnation != envelope.incarnation


def _older(process: Process, epoch: int, incarnation: int) -> bool:
    return incarnation < process.guard.incarnation or epoch < process.guard.epoch


def _first_epoch_is_c0s(world: World, number: int, command: Command) -> bool:
    """The coordinators differ in nothing but their names, so that it is c0 who wins the first epoch is no restriction."""
    return number == 0 or world.books.epoch > 0 or not isinstance(command, ToLearner)


# --- coordinators ---------------------------------------------------------------------------------------------------------------
def _command(world: World, number: int, command: Command, rules: Rules) -> Iterator[Move]:
    """One of a coordinator's calls, and all that can become of it."""
    told = _done(world, number, command)
    if isinstance(command, Watch):
        outcomes = _looked(told, number)
    else:
        outcomes = _called(told, command, rules)
    for label, after, event in outcomes:
        yield from _told(after, number, event, label)


def _looked(world: World, number: int) -> Iterator[Outcome]:
    """A look at the learner, and whether the epoch of another seems dead."""
    view = learner.view(world)
    yield "looks at the learner's view", world, Viewed(view)
    if view.open and view.owner != world.coordinators[number].state.coordinator:
        if not _driven(world):
            yield "finds the epoch stalled", world, Viewed(view, stalled=True)
        elif world.faults:
            hasty = _with(world, faults=world.faults - 1)
            yield "takes a slow epoch for stalled", hasty, Viewed(view, stalled=True)


def _called(world: World, command: ToLearner | ToMember, rules: Rules) -> Iterator[Outcome]:
    """A call that arrives, or not, or twice, and whose answer arrives or not."""
    label, silent, copy = _name(command), _silence(command), StrayCall(command)
    for words, after, event in _delivered(world, command, rules):
        yield f"{label}: {words}", after, event
        if after.faults:
            fewer = _with(after, faults=after.faults - 1)
            yield f"{label}: {words}, but the answer is lost", fewer, silent
            yield f"{label}: {words}, and a copy of it stays in the network", _stray(fewer, copy), event
            if isinstance(command, ToLearner):
                crashed = learner.restarted(fewer)
                yield f"{label}: {words}, and the learner crashes before it answers", crashed, silent
    if world.faults:
        fewer = _with(world, faults=world.faults - 1)
        yield f"{label}: no answer in time, it is still in the network", _stray(fewer, copy), silent


def _delivered(world: World, command: ToLearner | ToMember, rules: Rules) -> Iterator[Outcome]:
    """What the receiver makes of a call."""
    if isinstance(command, ToLearner):
        after, reply = learner.call(world, command, rules)
        if isinstance(reply, RefusedError):
            yield f"refused, {reply.reason}", after, LearnerRefused(command.phase, command.epoch, reply.reason)
        else:
            yield "done", after, LearnerAnswered(command.phase, command.epoch, reply)
        return
    name = command.member.name
    for words, after, said in rollouts.command(world, command, rules):
        if isinstance(said, RefusedError):
            yield f"refused, {said.reason}", after, MemberRefused(command.phase, command.epoch, name, said.reason)
        else:
            yield words, after, MemberAnswered(command.phase, command.epoch, name, said)


def _driven(world: World) -> bool:
    """Whether a living coordinator still drives the open epoch."""
    books = world.books
    return any(
        each.state.coordinator == books.owner
        and each.state.epoch == books.epoch
        and each.state.phase not in (Phase.IDLE, Phase.OVER)
        for each in world.coordinators
    )


def _done(world: World, number: int, command: Command) -> World:
    """The call is no longer to be made."""
    coordinator = world.coordinators[number]
    pending = list(coordinator.pending)
    pending.remove(command)
    return _set(world, number, Coordinator(coordinator.state, tuple(pending)))


def _told(world: World, number: int, event: Event, label: str) -> Iterator[Move]:
    """The coordinator learns something. Calls of a phase it has left are given up, though one may be in the network still; a look at
    the learner is given up when there is other work."""
    coordinator = world.coordinators[number]
    state, commands = machine.transition(coordinator.state, event)
    state = msgspec.structs.replace(state, note="")
    moved = (state.phase, state.epoch) != (coordinator.state.phase, coordinator.state.epoch)
    kept = [] if moved or any(isinstance(each, ToLearner) for each in commands) else list(coordinator.pending)
    fresh = tuple(Watch(wait=False) if isinstance(each, Watch) else each for each in commands)
    pending = (*kept, *(each for each in fresh if each not in kept))
    after = _set(world, number, Coordinator(state, pending))
    yield label, after
    for command in coordinator.pending:
        if command not in pending and not isinstance(command, Watch):
            yield f"{label}; {_name(command)} is given up but in the network", _stray(after, StrayCall(command))


def _set(world: World, number: int, coordinator: Coordinator) -> World:
    both = list(world.coordinators)
    both[number] = coordinator
    return _with(world, coordinators=tuple(both))


def _silence(command: ToLearner | ToMember) -> Event:
    if isinstance(command, ToLearner):
        return LearnerSilent(command.phase, command.epoch)
    return MemberSilent(command.phase, command.epoch, command.member.name)


def _name(command: Command) -> str:
    if isinstance(command, ToMember):
        return f"{command.phase} epoch {command.epoch} to {command.member.name}/{command.member.incarnation}"
    return f"{command.phase} epoch {command.epoch}" if isinstance(command, ToLearner) else "Watch"


# --- rollouts, leases, network, crashes -------------------------------------------------------------------------------------------
def _process(world: World, process: Process, rules: Rules) -> Iterator[Move]:
    allowed = world.samples[NAMES.index(process.guard.name)]
    if process.guard.samples and process.lease and allowed and process.guard.version == OLD:
        yield rollouts.sample(world, process)
    yield from rollouts.upload(world, process, rules)
    yield from rollouts.report(world, process, rules, driven=_driven(world))


def _arrival(world: World, stray: Stray, rules: Rules) -> Move:
    """A copy that nobody waits for is carried out all the same."""
    if isinstance(stray, StrayCall):
        assert not isinstance(stray.call, Watch), "a view that nobody waits for changes nothing"
        _, after, _ = next(_delivered(world, stray.call, rules))
        return _name(stray.call), after
    if isinstance(stray, StrayUpload):
        return "an upload", learner.receive(world, stray.upload, rules)[0]
    if isinstance(stray, StrayReady):
        return "a Ready", learner.ready(world, stray.message)[0]
    return "a heartbeat's answer", rollouts.late_reply(world, stray)


def _leases(world: World) -> Iterator[Move]:
    """A lease runs out: of a holder that is gone, or, as a fault, of one that is only slow."""
    if world.books.open:
        return
    for lease in world.books.leases:
        held = any(process.lease == lease.lease_id or _keeps(process, lease.lease_id) for process in world.processes)
        if not lease.live or (held and not world.faults) or (not held and _settled(world, lease.lease_id)):
            continue
        fates = tuple(
            msgspec.structs.replace(fate, discarded=1) if fate.lease_id == lease.lease_id and fate.ends == 0 else fate
            for fate in world.fates
        )
        after = _with(world, books=arbiter.expire(world.books, lease.lease_id), fates=fates)
        slow = "though its holder lives" if held else "its holder is gone"
        yield (
            f"learner: lease {lease.lease_id} expires, {slow}",
            _with(after, faults=after.faults - 1) if held else after,
        )


def _keeps(process: Process, lease_id: int) -> bool:
    return any(item.lease_id == lease_id for item in process.held)


def _settled(world: World, lease_id: int) -> bool:
    return all(fate.ends for fate in world.fates if fate.lease_id == lease_id)


def _crashes(world: World) -> Iterator[Move]:
    if world.memory != world.books.published:
        yield "learner: crashes and restarts", learner.restarted(world)
    for number, coordinator in enumerate(world.coordinators):
        state = coordinator.state
        if state.phase is Phase.IDLE and not state.patient:
            continue
        reset = _set(world, number, _fresh(state.coordinator, state.min_ready))
        yield f"{state.coordinator}: crashes and restarts", reset
        for command in coordinator.pending:
            if not isinstance(command, Watch):
                yield (
                    f"{state.coordinator}: crashes and restarts while {_name(command)} is in the network",
                    _stray(reset, StrayCall(command)),
                )
    for process in world.processes:
        if process.guard.incarnation and not process.replaced:
            yield f"{process.url}: crashes and restarts", rollouts.crashed(world, process)
            if len(world.processes) == len(NAMES):
                yield f"{process.url}: is cut off and replaced", rollouts.replaced(world, process)


def _stray(world: World, stray: Stray) -> World:
    return _with(world, strays=tuple(sorted((*world.strays, stray), key=repr)))


def _without(world: World, stray: Stray) -> World:
    rest = list(world.strays)
    rest.remove(stray)
    return _with(world, strays=tuple(rest))


def _with(world: World, **changes: object) -> World:
    return msgspec.structs.replace(world, **changes)
