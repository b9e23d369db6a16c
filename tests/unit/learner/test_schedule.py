"""Learning rates: warm-up, then the schedule, never above the peak, zero past the end."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncppo.api.training import OptimizerSpec, Schedule
from asyncppo_runtime.learner.schedule import learning_rate


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
