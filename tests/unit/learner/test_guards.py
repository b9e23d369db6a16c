"""Engine and learner come apart: the job stops instead of training on, or waiting for ever."""

import pytest

from asyncppo.report.measures import Discrepancy, UpdateMetrics
from asyncppo_runtime.learner.errors import GuardError
from asyncppo_runtime.learner.guards import MISLABELLED_IN_A_ROW, DiscrepancyGuard


def update(number: int, *means: tuple[int, float]) -> UpdateMetrics:
    by_staleness = dict(enumerate(means))
    return UpdateMetrics(
        update=number, version=number, at_seconds=0.0, reward=0.0, discrepancy=Discrepancy(by_staleness=by_staleness)
    )


def test_a_jump_stops_the_job() -> None:
    guard = DiscrepancyGuard(bound=0.01)
    for number in range(3):
        guard.batch(update(number, (10, 1e-6), (30, 2e-6)))
    guard.batch(update(3, (40, 9e-4)))  # many times the usual, but far from what one token may have
    with pytest.raises(GuardError, match=r"update 4 jumped to 0\.002 nats.*nothing was published"):
        guard.batch(update(4, (20, 1e-3), (20, 3e-3)))


def test_what_has_always_been_large_is_no_jump() -> None:
    guard = DiscrepancyGuard(bound=0.01)
    for number in range(30):
        guard.batch(update(number, (10, 3e-3)))
    guard.batch(update(30, (10, 9e-3)))
    guard.batch(update(31))


def test_segments_that_never_pass_stop_the_job() -> None:
    guard = DiscrepancyGuard(bound=0.01)
    guard.scored(0, MISLABELLED_IN_A_ROW - 1, "lease 1")
    guard.scored(1, 5, "lease 2")  # one that passes: the others are a member's own trouble
    guard.scored(0, MISLABELLED_IN_A_ROW - 1, "lease 3")
    guard.scored(0, 0, "")
    with pytest.raises(GuardError, match="all refused as mislabelled, the newest: lease 4"):
        guard.scored(0, 1, "lease 4")
