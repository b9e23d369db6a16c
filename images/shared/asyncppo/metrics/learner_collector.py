"""The learner's metrics, made at scrape time from the figures it keeps anyway.

Owns the mapping from `LearnerStatus` (totals, kept in the ledger, so a restart loses nothing) and `UpdateMetrics` (the newest
batch, and what is added up here) to samples. Does not own the figures.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from asyncppo.metrics import learner as names
from asyncppo.report.measures import LearnerStatus, UpdateMetrics

WIDEST_STALENESS = 32


def staleness_label(staleness: int) -> str:
    """The label of a staleness: the number, and one label for everything beyond the histogram's last bucket."""
    return str(staleness) if staleness <= WIDEST_STALENESS else f">{WIDEST_STALENESS}"


class LearnerCollector(Collector):
    """Register on the learner's registry; `status` answers the same as GET /v1/status; call `record` after each update."""

    def __init__(self, status: Callable[[], LearnerStatus]) -> None:
        self._status = status
        self._last: UpdateMetrics | None = None
        self._in_flight: Counter[int] = Counter()
        self._queued: Counter[int] = Counter()
        self._trajectories: Counter[int] = Counter()
        self._quadrants: Counter[str] = Counter()

    def describe(self) -> list[Family]:
        """Nothing: registering must not ask a learner that is still starting."""
        return []

    def record(self, update: UpdateMetrics) -> None:
        """Add one update's counts to the totals."""
        self._last = update
        self._in_flight.update(update.staleness_in_flight)
        self._queued.update(update.staleness_queued)
        self._trajectories.update(update.trajectory_staleness)
        self._quadrants.update(update.quadrants)

    def collect(self) -> Iterator[Family]:
        """All families of `asyncppo.metrics.learner`."""
        status = self._status()
        yield from self._progress(status)
        yield from self._correction(status)
        yield from _ledger(status)
        yield from _members(status)
        if self._last is not None:
            yield from _newest_batch(self._last)

    def _progress(self, status: LearnerStatus) -> Iterator[Family]:
        yield names.POLICY_VERSION.samples([((), status.version)])
        yield names.UPDATES.samples([((), status.update)])
        yield names.UPDATES_PLANNED.samples([((), status.updates)])
        yield names.TRAINED_TOKENS.samples([((), status.ledger.tokens.trained)])
        yield names.TRAINED_TRAJECTORIES.samples([((), status.ledger.trained)])
        yield names.REWARD.samples([((), status.last_reward)])
        yield names.BATCH_PROGRESS.samples([((), status.batch_progress)])
        yield names.ACTIVITY.samples([((activity,), seconds) for activity, seconds in sorted(status.time.items())])

    def _correction(self, status: LearnerStatus) -> Iterator[Family]:
        yield names.TOKEN_STALENESS.distribution([((), status.staleness.histogram)])
        yield names.TOKEN_STALENESS_IN_FLIGHT.distribution([((), self._in_flight)])
        yield names.TOKEN_STALENESS_QUEUED.distribution([((), self._queued)])
        yield names.TRAJECTORY_STALENESS.distribution([((), self._trajectories)])
        tokens: Counter[str] = Counter()
        absolute: dict[str, float] = {}
        for staleness, (count, mean) in sorted(status.discrepancy.by_staleness.items()):
            label = staleness_label(staleness)
            tokens[label] += count
            absolute[label] = absolute.get(label, 0.0) + count * mean
        yield names.DISCREPANCY_TOKENS.samples([((label,), count) for label, count in tokens.items()])
        yield names.DISCREPANCY_ABS.samples([((label,), total) for label, total in absolute.items()])
        yield names.DISCREPANCY_K3.samples([((), status.discrepancy.k3)])
        yield names.DISCREPANCY_MAX.samples([((), status.discrepancy.max_abs)])
        yield names.DISCREPANCY_SLOPE.samples([((), status.discrepancy.slope)])
        yield names.QUADRANT_TOKENS.samples([((name,), count) for name, count in sorted(self._quadrants.items())])
        yield names.EXACT_COVERAGE.samples([((), status.old_logits.exact_coverage)])
        yield names.EXACTNESS_VIOLATIONS.samples([((), status.old_logits.violations)])
        yield names.FALLBACKS.samples([((), status.old_logits.fallbacks)])
        audit = status.old_logits.audit
        decisions = {
            "all": audit.tokens,
            "agree": audit.agree,
            "falseMask": audit.false_masks,
            "missedMask": audit.missed_masks,
            "falseClip": audit.false_clips,
            "missedClip": audit.missed_clips,
        }
        yield names.AUDITED.samples([((decision,), count) for decision, count in decisions.items()])
        yield names.AUDIT_ERROR.samples([((), audit.mean_error)])
        yield names.SCORING_QUEUE.samples([((), status.old_logits.waiting)])
        yield names.SCORER_LOST.samples([((), float(bool(status.old_logits.unavailable)))])


def _ledger(status: LearnerStatus) -> Iterator[Family]:
    ledger = status.ledger
    fates = {
        "leased": ledger.leased,
        "inFlight": ledger.in_flight,
        "received": ledger.received,
        "expired": ledger.expired,
        "returned": ledger.returned,
        "trained": ledger.trained,
        "waiting": ledger.waiting,
        "undone": ledger.undone,
    }
    tokens = ledger.tokens
    token_fates = {
        "sampled": tokens.sampled,
        "scored": tokens.scored,
        "unscored": tokens.unscored,
        "trained": tokens.trained,
    }
    yield names.LEDGER_TRAJECTORIES.samples([((fate,), count) for fate, count in fates.items()])
    yield names.LEDGER_DISCARDED_TRAJECTORIES.samples([((why,), n) for why, n in sorted(ledger.discarded.items())])
    yield names.LEDGER_REFUSED.samples([((why,), n) for why, n in sorted(ledger.refused.items())])
    yield names.LEDGER_TOKENS.samples([((fate,), count) for fate, count in token_fates.items()])
    yield names.LEDGER_DISCARDED_TOKENS.samples([((why,), n) for why, n in sorted(tokens.discarded.items())])
    yield names.LEDGER_BALANCED.samples([((), float(ledger.balanced))])


def _members(status: LearnerStatus) -> Iterator[Family]:
    states = Counter(member.state for member in status.members)
    yield names.SYNCS.samples([((), status.syncs.count)])
    yield names.FENCED.samples([((), status.syncs.fenced)])
    yield names.MEMBERS.samples([((state,), count) for state, count in sorted(states.items())])
    yield names.MEMBER_SKEW.samples([((), version_skew(status))])


def version_skew(status: LearnerStatus) -> int:
    """Resident version minus the oldest version a ready rollout is on; 0 without ready rollouts."""
    on = [member.version for member in status.members if member.state == "Ready" and member.version >= 0]
    return max(0, status.version - min(on)) if on else 0


def _newest_batch(update: UpdateMetrics) -> Iterator[Family]:
    for metric, value in (
        (names.REWARD_STD, update.reward_std),
        (names.LOSS, update.loss),
        (names.GRADIENT_NORM, update.gradient_norm),
        (names.LEARNING_RATE, update.learning_rate),
        (names.ENTROPY, update.entropy),
        (names.KL, update.kl),
        (names.EFFECTIVE_SAMPLE_SIZE, update.effective_sample_size),
        (names.VALUE_LOSS, update.value_loss),
        (names.EXPLAINED_VARIANCE, update.explained_variance),
        (names.STALENESS_RATIO, update.staleness_ratio_mean),
        (names.STALENESS_RATIO_MAX, update.staleness_ratio_max),
        (names.CLIPPED, update.clip_fraction),
        (names.MASKED, update.mask_fraction),
    ):
        yield metric.samples([((), value)])
