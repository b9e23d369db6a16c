"""The coordinator's side of version sync as a pure state machine: data, and one transition function. No I/O, no clock.

Owns which call follows which answer. Does not own how calls are made (`coordinator.py`), what a column's phases are (`columns.py`),
nor the truth: that is the learner's `SyncView`, and whatever the machine believes gives way to it.

    state, commands = transition(state, event)

The rules, in the order they matter:

1. The learner hands out epochs and records the seal. Before the seal everything can be rolled back; after it there is only forward:
   a member loads the new version or is fenced.
2. A member that stays silent past its deadline, or refuses with another incarnation, is fenced: left out of the seal (or the finish)
   and named in it, so that the learner takes nothing more from that incarnation.
3. Finish comes before Resume. A coordinator that dies between the two leaves nothing stuck: the epoch is over, and each member learns
   that from its next heartbeat and resumes by itself. The other way round, members would sample in an epoch that is still open.
4. A refusal that smells of a newer epoch is not believed but checked: the machine looks at the learner's view, and gives up the epoch
   or fences the member by what it finds.
"""

import msgspec

from asyncppo.sync.columns import COLUMNS, MEMBER_PHASES, Column, Phase
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
from asyncppo.sync.reasons import BAD_WEIGHTS, Reason
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import Member, MemberState
from asyncppo.wire.syncing import Begin, Finish, Flush, Load, Loaded, Pause, Resume, Seal, SyncCall, SyncView
from asyncppo.wire.versions import Canary, VersionRecord

LIVE = frozenset({MemberState.READY, MemberState.DRAINING})
"""Members that may hold tokens of the current version and so take part in a sync."""

SEAL_ATTEMPTS = 3
"""Times that Flush, Score and Seal are gone through again in one epoch before it is rolled back."""

Step = tuple["State", tuple[Command, ...]]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All a coordinator remembers.

    coordinator: its name. min_ready: fewer live members than this and no sync begins. pause_seconds: a pause's time to live.
    patient: it has lost an epoch, so it leaves a running one alone until that stalls. note: why nothing is being done.

    Of the epoch being driven: version, the one it ends; members, still in it; waiting, those whose answer the phase lacks; doubted,
    those that spoke of a newer epoch; fenced, those left behind and not yet told of; rejected, those of them that found the weights bad;
    manifests, as flushed; attempts, at sealing; record and canary, of the version to load; sealed and stepped, as the learner said.
    """

    coordinator: str
    min_ready: int = 1
    pause_seconds: float = 60.0
    patient: bool = False
    note: str = ""
    phase: Phase = Phase.IDLE
    job_uid: str = ""
    column: str = ""
    epoch: int = 0
    version: int = -1
    sealed: bool = False
    stepped: bool = False
    members: tuple[Member, ...] = ()
    waiting: frozenset[str] = frozenset()
    doubted: frozenset[str] = frozenset()
    fenced: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    manifests: tuple[Manifest, ...] = ()
    attempts: int = 0
    record: VersionRecord | None = None
    canary: Canary | None = None

    @property
    def degraded(self) -> bool:
        """Whether so few members are left that the version must not be ended."""
        return not self.sealed and len(self.members) < self.min_ready


def transition(state: State, event: Event) -> Step:
    """The one transition function: the state after `event`, and the calls to make now. Total: any event in any state."""
    if state.phase is Phase.OVER:
        return state, ()
    if isinstance(event, Viewed):
        return _viewed(state, event)
    if event.phase is not state.phase or event.epoch != state.epoch:
        return state, ()
    match event:
        case LearnerAnswered():
            return _learner_answered(state, event.view)
        case LearnerRefused():
            return _learner_refused(state, event.reason)
        case LearnerSilent():
            return state, (Watch(wait=False),)
        case MemberAnswered() | MemberRefused() | MemberSilent():
            return _member(state, event) if event.name in state.waiting else (state, ())


def start(state: State) -> Step:
    """The first thing a coordinator does."""
    return state, (Watch(wait=False),)


def keep_paused(state: State) -> tuple[ToMember, ...]:
    """Pauses to send again now and then while an epoch's members are paused and busy or waiting: each prolongs the time to live."""
    if state.phase in (Phase.IDLE, Phase.BEGIN, Phase.PAUSE, Phase.RESUME, Phase.OVER):
        return ()
    phases = COLUMNS[state.column].phases
    if not state.sealed and phases.index(state.phase) < phases.index(Phase.PAUSE):
        return ()
    return tuple(_call(state, Phase.PAUSE, member) for member in state.members)


# --- the learner's view -----------------------------------------------------------------------------------------------------
def _viewed(state: State, event: Viewed) -> Step:
    view = event.view
    if view.finished or view.failed:
        return _idle(state, phase=Phase.OVER, note=view.failed or "the job is over"), ()
    if state.phase is Phase.IDLE:
        return _consider(state, view, event.stalled)
    if state.phase is Phase.BEGIN:
        return _begin_again(state, view)
    if view.epoch != state.epoch or view.owner != state.coordinator:
        return _lost(state, view)
    if state.phase is Phase.RESUME:
        return state, ()
    if not view.open:
        return _enter(_narrowed(state, view), Phase.RESUME)
    state = _narrowed(state, view)
    for name in sorted(state.doubted & state.waiting):
        state = _fence(state, name)
    if state.degraded and state.phase is not Phase.FINISH:
        return _roll_back(state)
    if state.phase in MEMBER_PHASES:
        return (state, ()) if state.waiting else _advance(state)
    if _reached(state):
        return _advance(state)
    return _enter(state, Phase.STEP if state.phase is Phase.PUBLISH else state.phase)


def _consider(state: State, view: SyncView, stalled: bool) -> Step:
    """Idle: is there a sync to begin, or an orphaned one to take over?"""
    if view.open:
        own = view.owner == state.coordinator and not state.patient
        if own or stalled:
            return _begin(state, view)
        note = f"epoch {view.epoch} is driven by {view.owner}"
        return msgspec.structs.replace(state, note=note), (Watch(wait=True),)
    if not view.wanted:
        return msgspec.structs.replace(state, note=""), (Watch(wait=True),)
    live = sum(member.state in LIVE for member in view.members)
    if live < state.min_ready:
        note = f"Degraded: {live} of at least {state.min_ready} rollouts are ready"
        return msgspec.structs.replace(state, note=note), (Watch(wait=True),)
    return _begin(state, view)


def _begin(state: State, view: SyncView) -> Step:
    state = _idle(state, phase=Phase.BEGIN, note="")
    state = msgspec.structs.replace(state, job_uid=view.job_uid, column=view.column, epoch=view.epoch + 1)
    message = Begin(view.job_uid, state.coordinator, view.epoch)
    return state, (ToLearner(Phase.BEGIN, state.epoch, message),)


def _begin_again(state: State, view: SyncView) -> Step:
    """Begin got no answer: the view says whether it was carried out."""
    if view.epoch == state.epoch and view.owner == state.coordinator and view.open:
        return _own(state, view)
    return _lost(state, view) if view.epoch >= state.epoch else _consider(_idle(state), view, stalled=True)


def _own(state: State, view: SyncView) -> Step:
    """The epoch is ours. What the view says is done already is skipped: an adopted sealed epoch goes straight on."""
    state = msgspec.structs.replace(
        state,
        column=view.column,
        version=view.version,
        sealed=view.sealed,
        stepped=_published(view),
        members=tuple(member for member in view.members if member.state in LIVE),
        record=view.record,
        canary=view.canary,
        patient=False,
    )
    return _roll_back(state) if state.degraded else _advance(state)


def _lost(state: State, view: SyncView | None) -> Step:
    """Somebody else holds a newer epoch (or ours was ended and another may begin): go back to watching, patiently."""
    state = _idle(state, patient=True, note=f"epoch {state.epoch} was lost")
    return _consider(state, view, stalled=False) if view is not None else (state, (Watch(wait=False),))


# --- the learner's answers --------------------------------------------------------------------------------------------------
def _learner_answered(state: State, view: SyncView) -> Step:
    if view.epoch != state.epoch or view.owner != state.coordinator:
        return _lost(state, view)
    if state.phase is Phase.BEGIN:
        return _own(state, view) if view.open else _lost(state, view)
    if not view.open:
        return _enter(_narrowed(state, view), Phase.RESUME)
    state = _narrowed(state, view)
    if state.degraded and state.phase is not Phase.FINISH:
        return _roll_back(state)
    if state.phase in (Phase.SCORE, Phase.STEP) or _reached(state):
        return _advance(state)
    return state, (Watch(wait=False),)


def _learner_refused(state: State, reason: str) -> Step:
    if reason == Reason.EPOCH_TAKEN or state.phase is Phase.BEGIN:
        return _lost(state, None)
    if state.phase in (Phase.SCORE, Phase.SEAL) and reason != Reason.NOT_READY:
        if state.attempts + 1 >= SEAL_ATTEMPTS:
            return _roll_back(state)
        state = msgspec.structs.replace(state, attempts=state.attempts + 1, manifests=())
        return _enter(state, Phase.FLUSH if _column(state).flushes else Phase.PAUSE)
    return state, (Watch(wait=False),)


def _reached(state: State) -> bool:
    """Whether the learner's view shows that what the phase is for has been done."""
    if state.phase is Phase.SEAL:
        return state.sealed
    return state.phase in (Phase.STEP, Phase.PUBLISH) and state.stepped


def _narrowed(state: State, view: SyncView) -> State:
    """Believe the view: which of our members the learner has not fenced meanwhile, what is sealed and published. The last two
    never become untrue within an epoch, so an answer that was overtaken by another takes nothing back."""
    sealed = state.sealed or (view.open and view.sealed)
    left = {(member.name, member.incarnation) for member in view.members}
    members = tuple(member for member in state.members if (member.name, member.incarnation) in left)
    if not view.open:
        members = state.members
    return msgspec.structs.replace(
        state,
        sealed=sealed,
        stepped=state.stepped or _published(view),
        members=members,
        waiting=state.waiting & {member.name for member in members},
        fenced=() if sealed and not state.sealed else state.fenced,
        manifests=() if sealed else state.manifests,
        record=view.record,
        canary=view.canary,
        version=view.version,
    )


def _published(view: SyncView) -> bool:
    return view.open and view.stepped and view.record is not None


# --- the members' answers ---------------------------------------------------------------------------------------------------
def _member(state: State, event: MemberAnswered | MemberRefused | MemberSilent) -> Step:
    if state.phase is Phase.RESUME:
        state = msgspec.structs.replace(state, waiting=state.waiting - {event.name})
        return (state, ()) if state.waiting else _advance(state)
    if isinstance(event, MemberRefused) and event.reason in (Reason.STALE_EPOCH, Reason.NOT_PAUSED):
        return msgspec.structs.replace(state, doubted=state.doubted | {event.name}), (Watch(wait=False),)
    if isinstance(event, MemberAnswered) and _fits(state, event):
        state = msgspec.structs.replace(state, waiting=state.waiting - {event.name})
        if isinstance(event.answer, Manifest):
            state = msgspec.structs.replace(state, manifests=(*state.manifests, event.answer))
    else:
        bad = isinstance(event, MemberRefused) and event.reason in BAD_WEIGHTS
        state = _fence(state, event.name, bad_weights=bad)
    if state.degraded:
        return _roll_back(state)
    return (state, ()) if state.waiting else _advance(state)


def _fits(state: State, event: MemberAnswered) -> bool:
    """Whether the answer is about what was asked."""
    answer = event.answer
    incarnation = next(member.incarnation for member in state.members if member.name == event.name)
    if isinstance(answer, Manifest):
        told = (answer.member, answer.incarnation, answer.version)
        return state.phase is Phase.FLUSH and told == (event.name, incarnation, state.version)
    if isinstance(answer, Loaded) and (state.record is None or answer.version != state.record.version):
        return False
    return (answer.envelope.target, answer.envelope.incarnation) == (event.name, incarnation)


def _fence(state: State, name: str, *, bad_weights: bool = False) -> State:
    return msgspec.structs.replace(
        state,
        members=tuple(member for member in state.members if member.name != name),
        waiting=state.waiting - {name},
        doubted=state.doubted - {name},
        fenced=(*state.fenced, name),
        rejected=(*state.rejected, name) if bad_weights else state.rejected,
        manifests=tuple(manifest for manifest in state.manifests if manifest.member != name),
    )


# --- going on ---------------------------------------------------------------------------------------------------------------
def _advance(state: State) -> Step:
    """Into the next phase of the column that is not done already and has somebody to be done with."""
    column = _column(state)
    phase = column.after(state.phase)
    while _skipped(state, phase):
        phase = column.after(phase)
    return _enter(state, phase)


def _skipped(state: State, phase: Phase) -> bool:
    if phase in (Phase.PAUSE, Phase.FLUSH, Phase.SCORE, Phase.SEAL) and state.sealed:
        return True
    if phase in (Phase.STEP, Phase.PUBLISH) and state.stepped:
        return True
    return phase in MEMBER_PHASES and not state.members


def _enter(state: State, phase: Phase) -> Step:
    """Begin a phase: its calls."""
    if phase is Phase.IDLE:
        return _idle(state), (Watch(wait=False),)
    state = msgspec.structs.replace(state, phase=phase, doubted=frozenset(), waiting=frozenset())
    if phase in MEMBER_PHASES and not state.members:
        return _advance(state)
    if phase in MEMBER_PHASES:
        names = frozenset(member.name for member in state.members)
        state = msgspec.structs.replace(state, waiting=names)
        return state, tuple(_call(state, phase, member) for member in state.members)
    return state, (ToLearner(phase, state.epoch, _learner_message(state)),)


def _roll_back(state: State) -> Step:
    """End the epoch without a seal: the learner records that, then the members go on under the version they have."""
    return _enter(state, Phase.FINISH)


def _idle(state: State, *, phase: Phase = Phase.IDLE, note: str = "", patient: bool | None = None) -> State:
    return State(
        coordinator=state.coordinator,
        min_ready=state.min_ready,
        pause_seconds=state.pause_seconds,
        patient=state.patient if patient is None else patient,
        note=note,
        phase=phase,
    )


def _column(state: State) -> Column:
    return COLUMNS[state.column]


def _learner_message(state: State) -> SyncCall | Seal | Finish:
    names = [member.name for member in state.members]
    if state.phase is Phase.SEAL:
        manifests = list(state.manifests)
        return Seal(state.job_uid, state.coordinator, state.epoch, state.version, names, manifests, list(state.fenced))
    if state.phase is Phase.FINISH:
        bad = ""
        if state.sealed and not names and state.rejected and set(state.rejected) == set(state.fenced):
            bad = f"every rollout refused the weights: {', '.join(state.rejected)}"
        loaded = names if state.sealed else []
        return Finish(state.job_uid, state.coordinator, state.epoch, loaded, list(state.fenced), {}, bad)
    manifests = list(state.manifests) if state.phase is Phase.SCORE else []
    return SyncCall(state.job_uid, state.coordinator, state.epoch, manifests)


def _call(state: State, phase: Phase, member: Member) -> ToMember:
    envelope = Envelope(job_uid=state.job_uid, epoch=state.epoch, target=member.name, incarnation=member.incarnation)
    message: Pause | Flush | Load | Resume
    if phase is Phase.PAUSE:
        message = Pause(envelope, state.pause_seconds)
    elif phase is Phase.FLUSH:
        message = Flush(envelope, state.version)
    elif phase is Phase.LOAD:
        assert state.record is not None, "a sealed epoch's target is published before it is loaded"
        message = Load(envelope, state.record, state.canary)
    else:
        message = Resume(envelope, state.version)
    return ToMember(phase, state.epoch, member, message)
