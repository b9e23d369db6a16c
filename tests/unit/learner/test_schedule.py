"""Learning rates: warm-up, then the schedule, never above the peak, zero past the end."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncppo.api.training import OptimizerSpec, Schedule
from asyncppo.report.measures import UpdateMetrics
from asyncppo_runtime.learner.schedule import jump, learning_rate


@given(st.sampled_from(Schedule), st.integers(1, 200), st.integers(0, 50), st.floats(1e-6, 1.0), st.integers(0, 400))
def test_between_zero_and_the_peak(schedule: Schedule, updates: int, warmup: int, peak: float, update: int) -> None:
    spec = OptimizerSpec(learning_rate=peak, schedule=schedule, warmup_updates=warmup)
    assert 0.0 <= learning_rate(spec, update, updates) <= peak * (1 + 1e-12)


def test_warm_up_rises_then_linear_falls() -> None:
    spec = OptimizerSpec(learning_rate=1.0, schedule=Schedule.LINEAR, warmup_updates=4)
    rates = [learning_rate(spec, update, 24) for update in range(25)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert max(rates) == rates[4] == 1.0
    assert rates[24] == 0.0
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))


def trained(spec: OptimizerSpec, update: int, updates: int) -> UpdateMetrics:
    """The newest update of a run of `updates`."""
    rate = learning_rate(spec, update - 1, updates)
    return UpdateMetrics(update=update, version=update, at_seconds=0.0, reward=0.0, learning_rate=rate)


def test_a_schedule_that_ends_later_says_both_rates() -> None:
    spec = OptimizerSpec(learning_rate=1e-3, schedule=Schedule.LINEAR)
    told = jump(spec, trained(spec, 3, 3), 6)
    assert "from 0.0003333 in update 3 to 0.0005 in update 4" in told
    assert "now ends at update 6" in told
    assert "Cosine" in jump(
        OptimizerSpec(schedule=Schedule.COSINE), trained(OptimizerSpec(schedule=Schedule.COSINE), 2, 3), 9
    )


@given(st.sampled_from(Schedule), st.integers(1, 50), st.integers(0, 20), st.data())
def test_a_resume_that_changes_nothing_says_nothing(
    schedule: Schedule, updates: int, warmup: int, data: st.DataObject
) -> None:
    spec = OptimizerSpec(schedule=schedule, warmup_updates=warmup)
    done = data.draw(st.integers(1, updates))
    assert jump(spec, trained(spec, done, updates), updates) == ""
    assert jump(spec, None, updates) == ""


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_constant_rate_has_no_end(done: int, more: int) -> None:
    spec = OptimizerSpec(schedule=Schedule.CONSTANT)
    assert jump(spec, trained(spec, done, done), done + more) == ""
