"""Failures are counted once each, whatever is seen how often, and the first one is kept; memory survives a restart of the operator."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.builders import NOW, crash, pod

from asyncppo.api.status import Phase
from asyncppo_operator.memory import Failure, Memory, count_failures, format_time, parse_time, recall
from asyncppo_operator.names import Role
from asyncppo_operator.status import _remembered


def test_a_restart_is_counted_once() -> None:
    crashed = pod(Role.ROLLOUT, restarts=1, last=crash())
    memory = count_failures(Memory(), [crashed], NOW)
    assert memory.failures == {"rollout": 1}
    assert count_failures(memory, [crashed], NOW) == memory


def test_further_restarts_of_the_same_pod_add_only_what_is_new() -> None:
    memory = count_failures(Memory(), [pod(Role.ROLLOUT, restarts=1, last=crash())], NOW)
    memory = count_failures(memory, [pod(Role.ROLLOUT, restarts=3, last=crash())], NOW)
    assert memory.total_failures == 3


def test_a_pod_that_went_leaves_its_count_but_not_its_name() -> None:
    memory = count_failures(Memory(), [pod(Role.ROLLOUT, restarts=2, last=crash())], NOW)
    memory = count_failures(memory, [], NOW)
    assert memory.total_failures == 2
    assert memory.counted == {}


def test_clean_ends_and_evictions_are_no_failures() -> None:
    pods = [
        pod(Role.ROLLOUT, 0, restarts=2, last=None),
        pod(Role.ROLLOUT, 1, restarts=1, last=crash(), disrupted=True),
    ]
    assert count_failures(Memory(), pods, NOW).total_failures == 0


def test_the_first_failure_in_time_is_the_root_cause() -> None:
    pods = [
        pod(Role.LEARNER, restarts=1, last=crash(message="connection refused", at="2026-01-02T03:00:09Z")),
        pod(Role.ROLLOUT, 1, restarts=1, last=crash(137, "out of memory", at="2026-01-02T03:00:01Z")),
    ]
    memory = count_failures(Memory(), pods, NOW)
    assert memory.first_failure is not None
    assert memory.first_failure.pod == "guess-rollout-1"
    assert "out of memory" in memory.first_failure.message
    assert count_failures(replace(memory, counted={}), pods[:1], NOW).first_failure == memory.first_failure


def test_memory_comes_back_from_the_status() -> None:
    memory = Memory(
        Phase.SUSPENDING,
        started=NOW,
        completed=NOW + timedelta(seconds=5),
        suspending=NOW,
        failures={"rollout": 2},
        counted={"u": 1},
        first_failure=Failure("rollout", "p", "Error", "boom", "t"),
        storage="claim-uid",
    )
    assert recall({"phase": memory.phase.value, **_remembered(memory)}) == memory


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "phase",
    "startTime",
    "completionTime",
    "suspendingTime",
    "failures",
    "countedRestarts",
    "firstFailure",
    "storageUid",
)


@given(st.dictionaries(st.sampled_from(FIELDS), JUNK))
def test_a_status_somebody_spoilt_is_read_as_far_as_it_makes_sense(status: dict[str, object]) -> None:
    memory = recall(status)
    assert memory.total_failures >= 0


@given(st.datetimes(min_value=datetime(1970, 1, 1)))
def test_times_survive_to_the_second(time: datetime) -> None:
    stamp = time.replace(tzinfo=UTC, microsecond=0)
    assert parse_time(format_time(stamp)) == stamp
