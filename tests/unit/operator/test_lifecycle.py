"""The phases of a job: each transition for its reason, ends that stay ends, and nothing that can raise."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.builders import NOW, answer, job, pod

from asyncppo.api.status import Phase
from asyncppo.report.measures import LearnerStatus
from asyncppo_operator.memory import FINAL, Failure, Memory
from asyncppo_operator.names import Role
from asyncppo_operator.plan.lifecycle import Decision, Target, decide
from asyncppo_operator.settings import Timing
from asyncppo_operator.views import PodView

TIMING = Timing()
PODS = [pod(Role.LEARNER), pod(Role.ROLLOUT, 0), pod(Role.ROLLOUT, 1)]


def decided(
    memory: Memory, learner: LearnerStatus | None = None, pods: list[PodView] = PODS, seconds: float = 0.0, **spec: Any
) -> Decision:
    return decide(job(**spec).spec, memory, learner, pods, NOW + timedelta(seconds=seconds), TIMING)


def test_pending_until_the_learner_trains() -> None:
    first = decided(Memory(), None, [])
    assert (first.target, first.memory.phase, first.memory.started) == (Target.RUN, Phase.PENDING, NOW)
    starting = decided(first.memory, answer("Starting"))
    assert starting.memory.phase is Phase.PENDING
    assert decided(starting.memory, answer()).memory.phase is Phase.RUNNING


def test_a_learner_that_goes_silent_makes_the_job_recover_not_fail() -> None:
    memory = Memory(Phase.RUNNING, started=NOW)
    away = decided(memory, None, seconds=50)
    assert (away.target, away.memory.phase) == (Target.RUN, Phase.RECOVERING)
    assert away.memory.started == NOW
    assert decided(away.memory, answer("Starting")).memory.phase is Phase.RECOVERING
    assert decided(away.memory, answer()).memory.phase is Phase.RUNNING


def test_complete_is_told_before_the_pods_go() -> None:
    memory = Memory(Phase.RUNNING, started=NOW)
    end = decided(memory, answer("Complete", update=10), seconds=9)
    assert (end.target, end.memory.phase, end.again) == (Target.RUN, Phase.COMPLETE, 0.0)
    assert end.memory.completed == NOW + timedelta(seconds=9)
    after = decided(end.memory, None, seconds=10)
    assert (after.target, after.memory) == (Target.DRAIN, end.memory), "workers take leave of their learner first"
    after = decided(end.memory, None, PODS[:1], seconds=11)
    assert (after.target, after.memory) == (Target.GONE, end.memory)
    assert decided(end.memory, None, seconds=10 + TIMING.stop_seconds).target is Target.GONE


def test_a_learner_that_failed_names_the_cause() -> None:
    end = decided(Memory(Phase.RUNNING, started=NOW), answer("Failed", message="loss is NaN. Last good checkpoint: 4"))
    assert end.memory.phase is Phase.FAILED
    assert "loss is NaN" in end.message
    assert end.memory.first_failure is not None


def test_too_many_failures_end_the_job_with_the_first_cause() -> None:
    cause = Failure("rollout", "guess-rollout-1", "OOMKilled", "OOMKilled (exit code 137): no memory", "t")
    memory = Memory(Phase.RUNNING, started=NOW, failures={"rollout": 3, "learner": 1}, first_failure=cause)
    end = decided(memory, answer())
    assert end.memory.phase is Phase.FAILED
    assert end.reason == "BackoffLimitExceeded"
    assert "guess-rollout-1: OOMKilled" in end.message
    assert decided(replace(memory, failures={"rollout": 3}), answer()).memory.phase is Phase.RUNNING


def test_the_deadline_is_kept_and_known_in_advance() -> None:
    memory = Memory(Phase.RUNNING, started=NOW)
    early = decided(memory, answer(), seconds=60, activeDeadlineSeconds=100)
    assert early.again == pytest.approx(40)
    late = decided(memory, answer(), seconds=100, activeDeadlineSeconds=100)
    assert (late.memory.phase, late.reason) == (Phase.FAILED, "DeadlineExceeded")


def test_a_job_created_suspended_makes_no_pods() -> None:
    first = decided(Memory(), None, [], suspend=True)
    assert (first.target, first.memory.phase, first.memory.started) == (Target.IDLE, Phase.SUSPENDED, None)


def test_workers_hand_over_before_the_learner_ends() -> None:
    memory = Memory(Phase.RUNNING, started=NOW)
    one = decided(memory, answer(), suspend=True)
    assert (one.target, one.memory.phase, one.memory.suspending) == (Target.DRAIN, Phase.SUSPENDING, NOW)
    two = decided(one.memory, answer(), PODS[:1], seconds=5, suspend=True)
    assert (two.target, two.memory.phase) == (Target.IDLE, Phase.SUSPENDING)
    three = decided(two.memory, None, [], seconds=9, suspend=True)
    assert (three.memory.phase, three.memory.suspending) == (Phase.SUSPENDED, None)
    assert decided(three.memory, None, [], suspend=True) == three


def test_workers_that_do_not_end_are_not_waited_for_for_ever() -> None:
    memory = Memory(Phase.SUSPENDING, suspending=NOW)
    assert decided(memory, answer(), seconds=TIMING.stop_seconds - 1, suspend=True).target is Target.DRAIN
    assert decided(memory, answer(), seconds=TIMING.stop_seconds, suspend=True).target is Target.IDLE


def test_a_job_that_completes_while_it_is_suspended_is_complete() -> None:
    memory = Memory(Phase.SUSPENDING, suspending=NOW)
    assert decided(memory, answer("Complete"), suspend=True).memory.phase is Phase.COMPLETE


def test_resuming_starts_the_clock_anew() -> None:
    resumed = decided(Memory(Phase.SUSPENDED), None, [], seconds=500, activeDeadlineSeconds=100)
    assert (resumed.target, resumed.memory.phase) == (Target.RUN, Phase.PENDING)
    assert resumed.memory.started == NOW + timedelta(seconds=500)


def test_a_finished_job_is_deleted_when_its_time_is_over() -> None:
    memory = Memory(Phase.COMPLETE, completed=NOW)
    assert decided(memory, None, [], seconds=30).target is Target.GONE
    waiting = decided(memory, None, [], seconds=30, ttlSecondsAfterFinished=60)
    assert waiting.target is Target.GONE
    assert waiting.again == pytest.approx(30)
    assert decided(memory, None, [], seconds=60, ttlSecondsAfterFinished=60).target is Target.DELETED


DONE = Memory(Phase.COMPLETE, started=NOW, completed=NOW, updates=10)
MORE = {"algorithm": {"updates": 20}}


def test_a_complete_job_goes_on_when_more_updates_are_asked_for() -> None:
    assert decided(DONE, None, [], seconds=30).target is Target.GONE
    more = decided(DONE, None, [], seconds=30, **MORE)
    assert (more.target, more.memory.phase, more.memory.completed) == (Target.RUN, Phase.PENDING, None)
    assert more.memory.started == NOW + timedelta(seconds=30), "activeDeadlineSeconds counts anew"
    assert decided(DONE, None, [], seconds=30, suspend=True, **MORE).memory.phase is Phase.SUSPENDED


def test_neither_a_failed_job_nor_one_whose_time_is_over_goes_on() -> None:
    failed = replace(DONE, phase=Phase.FAILED)
    assert decided(failed, None, [], seconds=30, **MORE).memory == failed
    assert decided(failed, None, [], seconds=30, activeDeadlineSeconds=9999).memory == failed
    assert decided(DONE, None, [], seconds=60, ttlSecondsAfterFinished=60, **MORE).target is Target.DELETED
    assert decided(DONE, None, [], seconds=59, ttlSecondsAfterFinished=60, **MORE).target is Target.RUN
    unknown = replace(DONE, updates=0)
    assert decided(unknown, None, [], **MORE).memory == unknown, "what it has done must be known"


def test_a_learner_that_was_told_too_late_starts_again_instead_of_ending_the_job() -> None:
    told = answer("Complete", update=10)
    again = decided(Memory(Phase.RUNNING, started=NOW), told, **MORE)
    assert (again.target, again.memory.phase, again.reason) == (Target.IDLE, Phase.RECOVERING, "MoreUpdates")
    new = decided(again.memory, None, [], **MORE)
    assert (new.target, new.memory.phase) == (Target.RUN, Phase.RECOVERING)
    assert decided(new.memory, answer(updates=20), **MORE).memory.phase is Phase.RUNNING
    end = decided(new.memory, answer("Complete", update=20, updates=20), **MORE)
    assert end.memory.phase is Phase.COMPLETE


def test_a_learner_that_was_told_too_late_can_be_suspended_and_has_its_deadline() -> None:
    told = answer("Complete", update=10)
    memory = Memory(Phase.RUNNING, started=NOW)
    assert decided(memory, told, suspend=True, **MORE).memory.phase is Phase.SUSPENDING
    late = decided(memory, told, seconds=100, activeDeadlineSeconds=100, **MORE)
    assert late.reason == "DeadlineExceeded"


MEMORIES = st.builds(
    Memory,
    phase=st.sampled_from(Phase),
    started=st.none() | st.just(NOW),
    completed=st.none() | st.just(NOW),
    suspending=st.none() | st.just(NOW),
    failures=st.dictionaries(st.sampled_from(["learner", "rollout"]), st.integers(1, 5), max_size=2),
)
LEARNERS = st.none() | st.sampled_from(["Starting", "Running", "Complete", "Failed", "?"]).map(answer)


@given(
    MEMORIES,
    LEARNERS,
    st.lists(st.sampled_from(PODS), unique=True),
    st.floats(0, 1e6),
    st.booleans(),
    st.none() | st.integers(1, 1000),
    st.none() | st.integers(0, 1000),
)
def test_any_situation_has_a_decision_and_ends_stay_ends(
    memory: Memory,
    learner: LearnerStatus | None,
    pods: list[PodView],
    seconds: float,
    suspend: bool,
    deadline: int | None,
    ttl: int | None,
) -> None:
    spec: dict[str, Any] = {"suspend": suspend}
    spec |= {"activeDeadlineSeconds": deadline} if deadline else {}
    spec |= {"ttlSecondsAfterFinished": ttl} if ttl is not None else {}
    made = decided(memory, learner, pods, seconds, **spec)
    assert made.again is None or made.again >= 0
    if memory.phase in FINAL:
        assert made.memory == memory
        assert made.target in (Target.DRAIN, Target.GONE, Target.DELETED)
    else:
        assert made.target not in (Target.GONE, Target.DELETED), "an end is stored before anything is removed"
    again = decided(made.memory, learner, pods, seconds, **spec)
    if made.memory.phase not in FINAL:
        assert again == made, "deciding twice about the same situation changes nothing"
