"""Running figures equal the figures of all updates taken together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncppo.report.measures import Discrepancy, Learning, Staleness, UpdateMetrics
from asyncppo_runtime.learner.board import exact_coverage
from asyncppo_runtime.learner.progress import Progress, quantiles, sync_figures, weighted_slope


def update(number: int, reward: float, histogram: dict[int, int], coverage: float = 1.0) -> UpdateMetrics:
    tokens = sum(histogram.values())
    return UpdateMetrics(
        update=number,
        version=number,
        at_seconds=0.0,
        reward=reward,
        trajectories=2,
        tokens=tokens,
        staleness=Staleness(histogram=histogram),
        discrepancy=Discrepancy(
            k3=0.5, max_abs=number, by_staleness={lag: (count, lag + 1.0) for lag, count in histogram.items()}
        ),
        exact_coverage=coverage,
    )


def test_totals_are_token_weighted() -> None:
    progress = Progress(10)
    progress.add(update(1, 0.0, {0: 3, 1: 1}))
    progress.add(update(2, 1.0, {1: 4}, coverage=0.5))
    assert progress.staleness().histogram == {0: 3, 1: 5}
    assert progress.staleness().mean == pytest.approx(5 / 8)
    assert progress.staleness().max == 1
    assert progress.exact_tokens == 6
    assert progress.discrepancy().max_abs == 2
    assert progress.discrepancy().slope == pytest.approx(1.0)
    assert progress.trajectories == 4


def test_reward_is_over_tenths() -> None:
    progress = Progress(40)
    for number in range(1, 41):
        progress.add(update(number, 1.0 if number == 20 else 0.1 * (number > 36), {0: 1}))
    reward = progress.reward()
    assert reward.first == 0.0
    assert reward.last == pytest.approx(0.1)
    assert reward.best == pytest.approx(0.25)


def test_an_update_trained_again_counts_once_in_the_reward() -> None:
    progress = Progress(2)
    progress.add(update(1, 0.0, {0: 1}))
    progress.add(update(1, 1.0, {0: 1}))
    assert progress.reward().last == 1.0


def test_nothing_trained_is_all_zero() -> None:
    progress = Progress(2)
    assert progress.reward().best == 0.0
    assert progress.exact_tokens == 0
    assert progress.discrepancy().k3 == 0.0


@given(
    st.dictionaries(
        st.integers(0, 30), st.tuples(st.integers(1, 50), st.floats(-5, 5, allow_subnormal=False)), min_size=2
    )
)
def test_slope_is_the_least_squares_fit(points: dict[int, tuple[int, float]]) -> None:
    xs = np.repeat(list(points), [n for n, _ in points.values()])
    ys = np.repeat([y for _, y in points.values()], [n for n, _ in points.values()])
    assert weighted_slope(points) == pytest.approx(np.polyfit(xs, ys, 1)[0], abs=1e-6)


@given(st.lists(st.floats(0, 100), min_size=1))
def test_quantiles_are_of_the_values(values: list[float]) -> None:
    found = quantiles(values)
    assert found.p50 in values
    assert found.p95 in values
    assert found.max == max(values)
    assert found.p50 <= found.p95 <= found.max
    assert sum(v <= found.p50 for v in values) >= len(values) / 2


def test_sync_figures_take_each_phase() -> None:
    syncs = sync_figures([{"pause": 1.0, "load": 3.0}, {"pause": 2.0}], fenced=1)
    assert (syncs.count, syncs.fenced) == (2, 1)
    assert syncs.pause_seconds.max == 2.0
    assert syncs.load_seconds.max == 3.0


def test_coverage_counts_what_was_dropped_for_want_of_a_score() -> None:
    assert exact_coverage(90, 90, {"lease_expired": 50, "stale": 3}) == 1.0
    assert exact_coverage(90, 90, {"mislabelled": 6, "version_unavailable": 4}) == pytest.approx(0.9)
    assert exact_coverage(45, 90, {}) == 0.5
    assert exact_coverage(0, 0, {}) == 0.0


def measured(number: int, tokens: int, measured_tokens: int, k3_sum: float, **changes: object) -> UpdateMetrics:
    """An update of which only a part took a forward."""
    figures: dict[str, object] = {
        "update": number,
        "version": number,
        "at_seconds": 0.0,
        "reward": 0.0,
        "groups": 2,
        "tokens": tokens,
        "measured_tokens": measured_tokens,
        "k3_sum": k3_sum,
        "exact_tokens": tokens,
        "signal_tokens": measured_tokens,
    }
    return UpdateMetrics(**(figures | changes))  # type: ignore[arg-type]


def test_k3_is_a_mean_over_the_tokens_it_was_measured_on() -> None:
    progress = Progress(2)
    progress.add(measured(1, tokens=1000, measured_tokens=10, k3_sum=5.0))
    progress.add(measured(2, tokens=1000, measured_tokens=30, k3_sum=1.0))
    assert progress.discrepancy().k3 == pytest.approx(6.0 / 40)
    assert progress.exact_tokens == 2000


def test_lines_of_a_program_without_sums_are_weighted_by_what_was_measured() -> None:
    progress = Progress(2)
    figures = Discrepancy(k3=0.5, by_staleness={0: (10, 0.1)})
    old = UpdateMetrics(
        update=1, version=1, at_seconds=0.0, reward=0.0, tokens=1000, discrepancy=figures, exact_coverage=0.999
    )
    progress.add(old)
    progress.add(measured(2, tokens=1000, measured_tokens=30, k3_sum=1.0))
    assert progress.discrepancy().k3 == pytest.approx(6.0 / 40)
    assert progress.exact_tokens == 1999


def test_what_there_was_to_learn_from_is_counted() -> None:
    progress = Progress(4)
    progress.add(measured(1, 10, 0, 0.0, zero_variance_groups=2))
    progress.add(measured(2, 10, 10, 0.0))
    # Equal rewards within each group, and yet a signal: an estimator over the whole batch.
    progress.add(measured(3, 10, 10, 0.0, zero_variance_groups=2))
    assert progress.learning() == Learning(updates=3, idle_updates=1, groups=6, zero_variance_groups=4)
    progress.add(measured(4, 10, 0, 0.0, zero_variance_groups=2, signal_tokens=None))
    assert progress.learning().idle_updates == 2, "an older program's line: judged by its groups"
