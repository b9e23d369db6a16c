"""When an exact job must not go on because engine and learner have come apart. Owns the thresholds; the trainer guards what is not finite.

Two signs. The mean |old - behavior| of a batch is many times what it was: every token still passes for its version by itself, and yet
something has changed. Or segment after segment is refused as mislabelled and none passes: waiting for better ones would last for ever.
"""

from collections import deque
from statistics import median

from asyncppo.report.measures import UpdateMetrics
from asyncppo_runtime.learner.errors import GuardError

WINDOW = 20
LEAST_HISTORY = 3
JUMP = 10.0
SHARE_OF_BOUND = 0.1
MISLABELLED_IN_A_ROW = 256


class DiscrepancyGuard:
    """bound: of a segment, nats (`oldLogits.segmentBound` or its default). Keeps the last updates' means, in memory: after a restart it
    learns them anew."""

    def __init__(self, bound: float) -> None:
        self._floor = SHARE_OF_BOUND * bound
        self._means: deque[float] = deque(maxlen=WINDOW)
        self._refused = 0

    def batch(self, metrics: UpdateMetrics) -> None:
        """Before the step that `metrics` is of. GuardError when the mean is above a tenth of the bound and ten times the usual."""
        pairs = metrics.discrepancy.by_staleness.values()
        tokens = sum(count for count, _ in pairs)
        if not tokens:
            return
        mean = sum(count * value for count, value in pairs) / tokens
        if len(self._means) >= LEAST_HISTORY and mean > max(self._floor, JUMP * median(self._means)):
            raise GuardError(
                f"the mean |old - behavior| of update {metrics.update} jumped to {mean:.3g} nats, from {median(self._means):.3g} "
                f"over the last {len(self._means)} updates: engine and learner no longer compute the same; nothing was published"
            )
        self._means.append(mean)

    def scored(self, passed: int, mislabelled: int, why: str) -> None:
        """After a scoring pass. GuardError when MISLABELLED_IN_A_ROW segments were refused and not one has passed between them."""
        self._refused = 0 if passed else self._refused + mislabelled
        if self._refused >= MISLABELLED_IN_A_ROW:
            raise GuardError(
                f"the last {self._refused} segments were all refused as mislabelled, the newest: {why}; engine and learner do not compute "
                "the same, nothing of it was trained on"
            )
