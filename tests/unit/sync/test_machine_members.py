"""Members that stay silent, refuse, or are not who they were: who is fenced, when, and what becomes of the sync."""

import pytest
from msgspec.structs import replace
from tests.unit.sync.builders import coordinator, member
from tests.unit.sync.course import Course, Learner, at, good, silent

from asyncppo.sync.columns import Phase
from asyncppo.sync.events import (
    MemberAnswered,
    MemberRefused,
    ToLearner,
    ToMember,
    Viewed,
    Watch,
)
from asyncppo.sync.machine import transition
from asyncppo.wire.experience import Manifest
from asyncppo.wire.syncing import Finish, Resume, Seal


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
