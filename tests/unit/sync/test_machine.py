"""Every column's way, every way off it, and what the learner says to it."""

import pytest
from msgspec.structs import replace
from tests.unit.sync.builders import ME, coordinator, member, view
from tests.unit.sync.course import Course, Learner, at

from asyncppo.sync.columns import COLUMNS, Phase
from asyncppo.sync.events import (
    LearnerRefused,
    LearnerSilent,
    ToLearner,
    Viewed,
    Watch,
)
from asyncppo.sync.machine import SEAL_ATTEMPTS, keep_paused, transition
from asyncppo.wire.membership import MemberState
from asyncppo.wire.syncing import Load, Resume, Seal

STEP_FIRST = ["Begin", "Step", "Publish", "Pause", "Seal", "Load", "Finish", "Resume"]
WAYS = {
    "Barrier": ["Begin", "Pause", "Flush", "Score", "Seal", "Step", "Publish", "Load", "Finish", "Resume"],
    "Overlapped": ["Begin", "Step", "Publish", "Pause", "Flush", "Seal", "Load", "Finish", "Resume"],
    "Snapshot": STEP_FIRST,
    "Dedicated": STEP_FIRST,
    "Inexact": STEP_FIRST,
}


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
