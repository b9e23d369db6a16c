"""The coordinator's machine: every column's way, every way off it, and what holds whatever comes."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.sync.builders import ME, answer_to, coordinator, member, view

from asyncppo.sync.columns import COLUMNS, MEMBER_PHASES, Phase
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
from asyncppo.sync.machine import SEAL_ATTEMPTS, State, keep_paused, start, transition
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import MemberState
from asyncppo.wire.syncing import Finish, Load, Resume, Seal

STEP_FIRST = ["Begin", "Step", "Publish", "Pause", "Seal", "Load", "Finish", "Resume"]
WAYS = {
    "Barrier": ["Begin", "Pause", "Flush", "Score", "Seal", "Step", "Publish", "Load", "Finish", "Resume"],
    "Overlapped": ["Begin", "Step", "Publish", "Pause", "Flush", "Seal", "Load", "Finish", "Resume"],
    "Snapshot": STEP_FIRST,
    "Dedicated": STEP_FIRST,
    "Inexact": STEP_FIRST,
}


class Learner:
    """Answers as a learner does, of one sync."""

    def __init__(self, column: str = "Barrier", **seen: object) -> None:
        self.view = view(column, **seen)  # type: ignore[arg-type]

    def carry_out(self, command: ToLearner) -> Event:
        name = command.phase
        if name is Phase.BEGIN:
            self.view = replace(self.view, epoch=command.epoch, owner=ME, open=True)
        elif name is Phase.SEAL:
            self.view = replace(self.view, sealed=True)
        elif name is Phase.PUBLISH:
            self.view = replace(self.view, stepped=True, record=view(stepped=True).record)
        elif name is Phase.FINISH:
            version = 1 if self.view.sealed else 0
            self.view = replace(self.view, open=False, sealed=False, stepped=False, wanted=False, version=version)
        return LearnerAnswered(command.phase, command.epoch, self.view)


def good(command: ToMember) -> Event:
    return MemberAnswered(command.phase, command.epoch, command.member.name, answer_to(command.message))


def silent(command: ToMember) -> Event:
    return MemberSilent(command.phase, command.epoch, command.member.name)


class Course:
    """A machine and what it said, driven until a phase or the end."""

    def __init__(self, learner: Learner, state: State | None = None) -> None:
        self.learner = learner
        self.state, self.due = start(state or coordinator())
        self.said: list[ToLearner | ToMember] = []

    def tell(self, event: Event) -> tuple[Command, ...]:
        self.state, commands = transition(self.state, event)
        if any(not isinstance(command, Watch) for command in commands):
            self.due = commands
        return commands

    def until(self, phase: Phase) -> tuple[Command, ...]:
        """Answer everything well until `phase` is entered; its commands."""
        for _ in range(40):
            if self.state.phase is phase and self.due:
                return self.due
            due, self.due = self.due or (Watch(wait=False),), ()
            for command in due:
                self.answer(command)
        raise AssertionError(f"{phase} was never entered; at {self.state.phase}")

    def to_the_end(self) -> None:
        while self.state.phase is not Phase.IDLE or self.learner.view.open or self.learner.view.wanted:
            due, self.due = self.due or (Watch(wait=False),), ()
            for command in due:
                self.answer(command)

    def answer(self, command: Command) -> None:
        if isinstance(command, Watch):
            self.tell(Viewed(self.learner.view))
            return
        self.said.append(command)
        self.tell(self.learner.carry_out(command) if isinstance(command, ToLearner) else good(command))

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(command.phase.value for command in self.said))

    def message(self, phase: Phase) -> object:
        return next(command.message for command in reversed(self.said) if command.phase is phase)


def at(phase: Phase, column: str = "Barrier", **seen: object) -> Course:
    course = Course(Learner(column, **seen))
    course.until(phase)
    return course


@pytest.mark.parametrize("column", list(COLUMNS))
def test_every_column_goes_its_way(column: str) -> None:
    course = Course(Learner(column))
    course.to_the_end()
    assert course.phases == WAYS[column]
    members = [command.member.name for command in course.said if command.phase is Phase.PAUSE]  # type: ignore[union-attr]
    assert members == ["a", "b"]
    assert all(command.epoch == 1 for command in course.said)


def test_flush_and_resume_speak_of_the_right_versions() -> None:
    course = Course(Learner())
    course.to_the_end()
    seal, load, resume = (course.message(phase) for phase in (Phase.SEAL, Phase.LOAD, Phase.RESUME))
    assert isinstance(seal, Seal)
    assert (seal.version, seal.members, seal.fenced) == (0, ["a", "b"], [])
    assert [manifest.member for manifest in seal.manifests] == ["a", "b"]
    assert isinstance(load, Load)
    assert load.record.version == 1
    assert isinstance(resume, Resume)
    assert resume.version == 1


def test_nothing_to_do_means_wait() -> None:
    state, commands = transition(coordinator(), Viewed(view(wanted=False)))
    assert (state.phase, commands) == (Phase.IDLE, (Watch(wait=True),))


def test_too_few_members_means_degraded() -> None:
    state, commands = transition(coordinator(min_ready=3), Viewed(view()))
    assert commands == (Watch(wait=True),)
    assert "2 of at least 3" in state.note
    joining = (member("a"), member("b", state=MemberState.JOINING))
    assert "1 of at least 2" in transition(coordinator(2), Viewed(view(members=joining)))[0].note


def test_nobody_is_enough_when_nobody_is_needed() -> None:
    course = Course(Learner(members=()), coordinator(min_ready=0))
    course.to_the_end()
    assert course.phases == ["Begin", "Score", "Seal", "Step", "Publish", "Finish"]


@pytest.mark.parametrize("phase", [Phase.PAUSE, Phase.FLUSH])
def test_who_stays_silent_before_the_seal_is_fenced_in_it(phase: Phase) -> None:
    course = at(phase)
    first, second = course.due
    course.due = ()
    course.tell(good(first))  # type: ignore[arg-type]
    course.tell(silent(second))  # type: ignore[arg-type]
    course.to_the_end()
    seal, finish = course.message(Phase.SEAL), course.message(Phase.FINISH)
    assert isinstance(seal, Seal)
    assert isinstance(finish, Finish)
    assert (seal.members, seal.fenced) == (["a"], ["b"])
    assert [manifest.member for manifest in seal.manifests] == ["a"]
    assert (finish.loaded, finish.fenced) == (["a"], [])


def test_who_does_not_load_is_fenced_in_the_finish() -> None:
    course = at(Phase.LOAD)
    first, second = course.due
    course.tell(silent(second))  # type: ignore[arg-type]
    course.due = (first,)
    course.to_the_end()
    finish = course.message(Phase.FINISH)
    assert isinstance(finish, Finish)
    assert (finish.loaded, finish.fenced, finish.bad_publication) == (["a"], ["b"], "")


def test_all_silent_before_the_seal_rolls_back() -> None:
    course = at(Phase.PAUSE)
    due, course.due = course.due, ()
    for command in due:
        course.tell(silent(command))  # type: ignore[arg-type]
    assert course.state.phase is Phase.FINISH
    (command,) = course.due
    assert isinstance(command, ToLearner)
    assert isinstance(command.message, Finish)
    assert (command.message.loaded, command.message.fenced) == ([], ["a", "b"])


def test_all_silent_after_the_seal_goes_forward() -> None:
    course = at(Phase.LOAD)
    due, course.due = course.due, ()
    for command in due:
        course.tell(silent(command))  # type: ignore[arg-type]
    course.to_the_end()
    finish = course.message(Phase.FINISH)
    assert isinstance(finish, Finish)
    assert (finish.loaded, finish.fenced, finish.bad_publication) == ([], ["a", "b"], "")


def test_rolled_back_members_resume_at_the_old_version() -> None:
    course = Course(Learner(), coordinator(min_ready=2))
    course.until(Phase.FLUSH)
    course.tell(silent(course.due[1]))  # type: ignore[arg-type]
    assert course.state.phase is Phase.FINISH
    (resume,) = course.until(Phase.RESUME)
    assert isinstance(resume, ToMember)
    assert resume.member.name == "a"
    assert isinstance(resume.message, Resume)
    assert resume.message.version == 0


def test_weights_that_everybody_refuses_are_a_bad_publication() -> None:
    course = at(Phase.LOAD)
    due, course.due = course.due, ()
    for command in due:
        course.tell(MemberRefused(Phase.LOAD, 1, command.member.name, "CanaryFailed"))  # type: ignore[union-attr]
    (command,) = course.due
    assert isinstance(command, ToLearner)
    assert isinstance(command.message, Finish)
    assert "a, b" in command.message.bad_publication


def test_weights_that_one_refuses_are_not() -> None:
    course = at(Phase.LOAD)
    first, second = course.due
    course.tell(MemberRefused(Phase.LOAD, 1, "b", "CanaryFailed"))
    course.due = (first,)
    course.to_the_end()
    finish = course.message(Phase.FINISH)
    assert isinstance(finish, Finish)
    assert (finish.fenced, finish.bad_publication) == (["b"], "")
    assert second


def test_finish_comes_before_resume() -> None:
    course = at(Phase.FINISH)
    assert Phase.RESUME not in [command.phase for command in course.said]
    course.until(Phase.RESUME)
    assert not course.learner.view.open


def test_a_silent_member_at_resume_is_left_to_its_heartbeat() -> None:
    course = at(Phase.RESUME)
    for command in course.due:
        course.tell(silent(command))  # type: ignore[arg-type]
    assert course.state.phase is Phase.IDLE


@pytest.mark.parametrize("reason", ["StaleEpoch", "NotPaused"])
def test_a_member_that_knows_better_is_checked_with_the_learner(reason: str) -> None:
    course = at(Phase.FLUSH)
    refusal = MemberRefused(Phase.FLUSH, 1, "a", reason)
    assert course.tell(refusal) == (Watch(wait=False),)
    assert course.state.phase is Phase.FLUSH
    taken = replace(course.learner.view, epoch=2, owner="c1")
    state, _ = transition(course.state, Viewed(taken))
    assert (state.phase, state.patient) == (Phase.IDLE, True)
    state, _ = transition(course.state, Viewed(course.learner.view))
    assert (state.phase, state.fenced) == (Phase.FLUSH, ("a",))


@pytest.mark.parametrize("reason", ["StaleIncarnation", "OtherJob", "OtherMember", "NotJoined", "AnythingElse"])
def test_a_member_that_is_not_who_it_was_is_fenced(reason: str) -> None:
    course = at(Phase.PAUSE)
    course.tell(MemberRefused(Phase.PAUSE, 1, "a", reason))
    assert course.state.fenced == ("a",)


def test_an_answer_about_something_else_fences() -> None:
    course = at(Phase.FLUSH)
    course.tell(MemberAnswered(Phase.FLUSH, 1, "a", Manifest("a", 2, 0, [])))
    assert course.state.fenced == ("a",)
    course.tell(MemberAnswered(Phase.FLUSH, 1, "b", Manifest("b", 1, 5, [])))
    assert course.state.phase is Phase.FINISH


def test_who_has_joined_again_is_not_waited_for() -> None:
    course = at(Phase.PAUSE)
    course.tell(good(course.due[0]))  # type: ignore[arg-type]
    course.due = ()
    course.tell(Viewed(replace(course.learner.view, members=[member("a"), member("b", 2)])))
    assert course.state.phase is Phase.FLUSH
    assert [each.name for each in course.state.members] == ["a"]
    assert course.state.fenced == ()


@pytest.mark.parametrize("phase", [Phase.PAUSE, Phase.FLUSH, Phase.LOAD])
def test_an_epoch_that_was_ended_by_others_resumes(phase: Phase) -> None:
    course = at(phase)
    course.due = ()
    course.tell(Viewed(replace(course.learner.view, open=False)))
    assert course.state.phase is Phase.RESUME


@pytest.mark.parametrize("phase", [Phase.BEGIN, Phase.SCORE, Phase.SEAL, Phase.STEP, Phase.PUBLISH, Phase.FINISH])
@pytest.mark.parametrize("carried_out", [False, True])
def test_a_silent_learner_is_asked_and_the_sync_goes_on(phase: Phase, carried_out: bool) -> None:
    course = at(phase)
    (command,) = course.due
    assert isinstance(command, ToLearner)
    if carried_out:
        course.learner.carry_out(command)
    assert course.tell(LearnerSilent(phase, 1)) == (Watch(wait=False),)
    course.due = ()
    course.tell(Viewed(course.learner.view))
    course.to_the_end()
    assert course.learner.view.version == 1
    assert not course.learner.view.open


def test_a_learner_that_lost_its_step_is_asked_to_step_again() -> None:
    course = at(Phase.PUBLISH)
    course.tell(LearnerSilent(Phase.PUBLISH, 1))
    course.tell(Viewed(course.learner.view))
    assert course.state.phase is Phase.STEP


@pytest.mark.parametrize("column", ["Barrier", "Overlapped"])
def test_a_refused_seal_is_flushed_again_then_rolled_back(column: str) -> None:
    course = at(Phase.SEAL, column)
    for _ in range(SEAL_ATTEMPTS - 1):
        course.tell(LearnerRefused(Phase.SEAL, 1, "ManifestIncomplete"))
        assert course.state.phase is Phase.FLUSH
        assert course.state.manifests == ()
        course.until(Phase.SEAL)
    course.tell(LearnerRefused(Phase.SEAL, 1, "ManifestIncomplete"))
    assert course.state.phase is Phase.FINISH
    course.until(Phase.RESUME)
    assert course.learner.view.version == 0


def test_not_ready_is_asked_again_without_a_count() -> None:
    course = at(Phase.SCORE)
    for _ in range(SEAL_ATTEMPTS + 2):
        course.tell(LearnerRefused(Phase.SCORE, 1, "NotReady"))
        course.tell(Viewed(course.learner.view))
        assert course.state.phase is Phase.SCORE


@pytest.mark.parametrize("phase", [Phase.BEGIN, Phase.SEAL, Phase.STEP, Phase.FINISH])
def test_a_taken_epoch_is_given_up(phase: Phase) -> None:
    course = at(phase)
    assert course.tell(LearnerRefused(phase, 1, "EpochTaken")) == (Watch(wait=False),)
    assert (course.state.phase, course.state.patient) == (Phase.IDLE, True)


def test_somebody_elses_epoch_is_left_alone_until_it_stalls() -> None:
    others = view(epoch=4, owner="c1", open=True)
    state, commands = transition(coordinator(), Viewed(others))
    assert (state.phase, commands) == (Phase.IDLE, (Watch(wait=True),))
    state, (command,) = transition(state, Viewed(others, stalled=True))
    assert state.phase is Phase.BEGIN
    assert isinstance(command, ToLearner)
    assert command.message.expected_epoch == 4  # type: ignore[union-attr]


def test_its_own_epoch_is_taken_up_at_once_after_a_restart_but_not_after_a_loss() -> None:
    own = view(epoch=4, owner=ME, open=True)
    assert transition(coordinator(), Viewed(own))[0].phase is Phase.BEGIN
    assert transition(replace(coordinator(), patient=True), Viewed(own))[0].phase is Phase.IDLE


@pytest.mark.parametrize(
    ("stepped", "way"),
    [(False, ["Begin", "Step", "Publish", "Load", "Finish", "Resume"]), (True, ["Begin", "Load", "Finish", "Resume"])],
)
def test_a_sealed_epoch_of_the_dead_goes_forward(stepped: bool, way: list[str]) -> None:
    course = Course(Learner(epoch=4, owner=ME, open=True, sealed=True, stepped=stepped))
    course.to_the_end()
    assert course.phases == way


def test_a_published_target_is_not_stepped_for_again() -> None:
    course = Course(Learner("Snapshot", stepped=True))
    course.to_the_end()
    assert course.phases == ["Begin", "Pause", "Seal", "Load", "Finish", "Resume"]


def test_a_finished_job_ends_it() -> None:
    for phase in (Phase.PAUSE, Phase.SEAL, Phase.LOAD):
        course = at(phase)
        assert course.tell(Viewed(replace(course.learner.view, finished=True))) == ()
        assert course.state.phase is Phase.OVER
        assert course.tell(Viewed(view())) == ()
    assert "no memory" in transition(coordinator(), Viewed(view(failed="no memory")))[0].note


def test_only_paused_members_are_kept_paused() -> None:
    kept = {
        phase: [command.phase for command in keep_paused(at(phase).state)]
        for phase in COLUMNS["Barrier"].phases
        if phase is not Phase.BEGIN
    }
    busy = {Phase.FLUSH, Phase.SCORE, Phase.SEAL, Phase.STEP, Phase.PUBLISH, Phase.LOAD, Phase.FINISH}
    assert {phase for phase, commands in kept.items() if commands} == busy
    assert kept[Phase.SCORE] == [Phase.PAUSE, Phase.PAUSE]
    assert keep_paused(at(Phase.STEP, "Snapshot").state) == ()
    assert keep_paused(coordinator()) == ()


# --- whatever comes -----------------------------------------------------------------------------------------------------------
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
