"""Whatever comes, in whatever order, the machine keeps to the protocol."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.sync.builders import ME, coordinator, member, view
from tests.unit.sync.course import Course, Learner, good, silent

from asyncppo.sync.columns import COLUMNS, MEMBER_PHASES, Phase
from asyncppo.sync.events import (
    Command,
    Event,
    LearnerAnswered,
    LearnerRefused,
    LearnerSilent,
    MemberRefused,
    MemberSilent,
    ToLearner,
    ToMember,
    Viewed,
    Watch,
)
from asyncppo.sync.machine import State, start, transition
from asyncppo.wire.membership import MemberState

NAMES = st.sampled_from(["a", "b"])
EPOCHS = st.integers(0, 3)
PHASES = st.sampled_from(Phase)
REASONS = st.sampled_from(["EpochTaken", "NotReady", "StaleEpoch", "ManifestIncomplete", "CanaryFailed", "Whatever"])
MEMBERS = st.lists(st.builds(member, NAMES, st.integers(1, 2)), max_size=2, unique_by=lambda each: each.name)
VIEWS = st.builds(
    view,
    st.sampled_from(list(COLUMNS)),
    epoch=EPOCHS,
    owner=st.sampled_from([ME, "c1"]),
    open=st.booleans(),
    sealed=st.booleans(),
    wanted=st.booleans(),
    stepped=st.booleans(),
    members=MEMBERS.map(tuple),
)
EVENTS = st.one_of(
    st.builds(Viewed, VIEWS, st.booleans()),
    st.builds(LearnerAnswered, PHASES, EPOCHS, VIEWS),
    st.builds(LearnerRefused, PHASES, EPOCHS, REASONS),
    st.builds(LearnerSilent, PHASES, EPOCHS),
    st.builds(MemberSilent, PHASES, EPOCHS, NAMES),
    st.builds(MemberRefused, PHASES, EPOCHS, NAMES, REASONS),
)
REACTIONS = st.sampled_from(["good", "good", "good", "silent", "refused", "noise"])


@settings(max_examples=150)
@given(st.sampled_from(list(COLUMNS)), st.lists(st.tuples(REACTIONS, st.integers(0, 3), EVENTS), max_size=40))
def test_whatever_comes_the_protocol_is_kept(column: str, course: list[tuple[str, int, Event]]) -> None:
    """Answers in any order, good and bad, with any other event between them."""
    learner = Learner(column)
    state, commands = start(coordinator())
    due = list(commands)
    for reaction, choice, noise in course:
        command = due.pop(choice % len(due)) if due else Watch(wait=False)
        event = noise if reaction == "noise" else react(learner, command, reaction)
        before = state
        state, commands = transition(state, event)
        check(before, state, commands)
        due = [*due, *commands]


def react(learner: Learner, command: Command, reaction: str) -> Event:
    if isinstance(command, Watch):
        return Viewed(learner.view)
    if isinstance(command, ToLearner):
        if reaction == "good":
            return learner.carry_out(command)
        refused = LearnerRefused(command.phase, command.epoch, "Whatever")
        return LearnerSilent(command.phase, command.epoch) if reaction == "silent" else refused
    if reaction == "good":
        return good(command)
    refusal = MemberRefused(command.phase, command.epoch, command.member.name, "Whatever")
    return silent(command) if reaction == "silent" else refusal


def check(before: State, state: State, commands: Iterable[Command]) -> None:
    """What holds after every transition."""
    names = {each.name for each in state.members}
    assert state.waiting <= names
    assert not names & set(state.fenced)
    assert not state.waiting or state.phase in MEMBER_PHASES
    if before.phase is Phase.OVER:
        assert state == before
    for command in commands:
        if isinstance(command, Watch):
            continue
        assert (command.phase, command.epoch) == (state.phase, state.epoch)
        if isinstance(command, ToMember):
            assert command.message.envelope.incarnation == command.member.incarnation
        if command.phase is Phase.LOAD:
            assert state.sealed
            assert state.stepped
        if command.phase in (Phase.PAUSE, Phase.FLUSH, Phase.SCORE, Phase.SEAL):
            assert not state.sealed
        if command.phase is Phase.RESUME:
            # Only after the learner has said that the epoch is over.
            assert before.phase is not Phase.IDLE
    # A view of the past (noise) may have it ask for an epoch of the same number anew, which the learner refuses: that is another epoch.
    begun = state.phase is Phase.BEGIN and before.phase is not Phase.BEGIN
    if state.epoch == before.epoch and Phase.IDLE not in (state.phase, before.phase) and not begun:
        assert state.sealed >= before.sealed
        assert set(names) <= {each.name for each in before.members} or before.phase is Phase.BEGIN


def test_members_are_what_the_view_calls_live() -> None:
    course = Course(Learner(members=(member("a"), member("b", state=MemberState.DRAINING))))
    course.until(Phase.PAUSE)
    assert [each.name for each in course.state.members] == ["a", "b"]
