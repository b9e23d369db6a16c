"""What the run has come to so far: folds one UpdateMetrics after another into the figures of LearnerStatus. Pure arithmetic.

Owns sums over updates. Does not own the metrics of one update (`trainer`), nor the ledger's totals.
"""

from collections.abc import Sequence
from itertools import accumulate

from asyncppo.report.measures import Audit, Discrepancy, Learning, Quantiles, Reward, Staleness, Syncs, UpdateMetrics


class Progress:
    """Running totals over updates; token-weighted where the figure is per token."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.last: UpdateMetrics | None = None
        self._rewards: dict[int, float] = {}
        self._staleness: dict[int, int] = {}
        self._by_staleness: dict[int, tuple[int, float]] = {}
        self._tokens = 0
        self._trajectories = 0
        self._measured = 0
        self._k3 = 0.0
        self._max_abs = 0.0
        self._exact = 0
        self._learning = Learning()
        self.audit = Audit()

    def add(self, metrics: UpdateMetrics) -> None:
        """Fold in one more update. An update trained again after a restore replaces its reward."""
        self.last = metrics
        self._rewards[metrics.update] = metrics.reward
        for staleness, tokens in metrics.staleness.histogram.items():
            self._staleness[staleness] = self._staleness.get(staleness, 0) + tokens
        for staleness, (tokens, mean) in metrics.discrepancy.by_staleness.items():
            seen, total = self._by_staleness.get(staleness, (0, 0.0))
            self._by_staleness[staleness] = (seen + tokens, total + tokens * mean)
        self._tokens += metrics.tokens
        self._trajectories += metrics.trajectories
        # k3 is of the tokens that took a forward, and weighs by them: groups without variance may take none.
        measured = sum(count for count, _ in metrics.discrepancy.by_staleness.values())
        self._measured += measured if metrics.measured_tokens is None else metrics.measured_tokens
        self._k3 += metrics.discrepancy.k3 * measured if metrics.k3_sum is None else metrics.k3_sum
        self._max_abs = max(self._max_abs, metrics.discrepancy.max_abs)
        self.audit = self.audit + metrics.audit
        covered = round(metrics.exact_coverage * metrics.tokens)
        self._exact += covered if metrics.exact_tokens is None else metrics.exact_tokens
        self._learning = _with(self._learning, metrics)

    @property
    def tokens(self) -> int:
        """Loss tokens trained."""
        return self._tokens

    @property
    def trajectories(self) -> int:
        """Trajectories trained."""
        return self._trajectories

    @property
    def exact_tokens(self) -> int:
        """Loss tokens trained whose old log-prob was verified exact."""
        return self._exact

    def learning(self) -> Learning:
        """What there was to learn from, over all updates trained."""
        return self._learning

    def reward(self) -> Reward:
        """Means over the first, last and best tenth of the updates so far."""
        rewards = [self._rewards[update] for update in sorted(self._rewards)]
        if not rewards:
            return Reward()
        tenth = max(1, len(rewards) // 10)
        sums = [0.0, *accumulate(rewards)]  # asked for every second: linear in the updates, not quadratic
        best = max(after - before for before, after in zip(sums, sums[tenth:], strict=False)) / tenth
        return Reward(first=mean(rewards[:tenth]), last=mean(rewards[-tenth:]), best=best)

    def staleness(self) -> Staleness:
        """Over all trained tokens."""
        tokens = sum(self._staleness.values())
        if not tokens:
            return Staleness()
        total = sum(staleness * count for staleness, count in self._staleness.items())
        return Staleness(mean=total / tokens, max=max(self._staleness), histogram=dict(sorted(self._staleness.items())))

    def discrepancy(self) -> Discrepancy:
        """Over all trained tokens; the slope is the token-weighted least-squares fit of mean |d| against staleness."""
        by_staleness = {s: (n, total / n) for s, (n, total) in sorted(self._by_staleness.items()) if n}
        return Discrepancy(
            k3=self._k3 / self._measured if self._measured else 0.0,
            max_abs=self._max_abs,
            slope=weighted_slope(by_staleness),
            by_staleness=by_staleness,
        )


def _with(learning: Learning, metrics: UpdateMetrics) -> Learning:
    uniform = metrics.groups > 0 and metrics.zero_variance_groups == metrics.groups
    idle = uniform if metrics.signal_tokens is None else metrics.signal_tokens == 0
    return Learning(
        updates=learning.updates + 1,
        idle_updates=learning.idle_updates + idle,
        groups=learning.groups + metrics.groups,
        zero_variance_groups=learning.zero_variance_groups + metrics.zero_variance_groups,
    )


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def weighted_slope(by_staleness: dict[int, tuple[int, float]]) -> float:
    """Least-squares slope of y against integer x for {x: (weight, y)}; 0 with fewer than two x."""
    weight = sum(n for n, _ in by_staleness.values())
    if weight == 0:
        return 0.0
    center = sum(x * n for x, (n, _) in by_staleness.items()) / weight
    level = sum(n * y for n, y in by_staleness.values()) / weight
    spread = sum(n * (x - center) ** 2 for x, (n, _) in by_staleness.items())
    if spread == 0.0:
        return 0.0
    return sum(n * (x - center) * (y - level) for x, (n, y) in by_staleness.items()) / spread


def quantiles(values: Sequence[float]) -> Quantiles:
    """p50, p95 (nearest rank) and maximum, in the unit of `values`."""
    if not values:
        return Quantiles()
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]

    return Quantiles(p50=rank(0.5), p95=rank(0.95), max=ordered[-1])


def sync_figures(syncs: Sequence[dict[str, float]], fenced: int) -> Syncs:
    """The Syncs measure from each sync's phase seconds (keys are the machine's phase names in lower case)."""

    def of(phase: str) -> Quantiles:
        return quantiles([seconds[phase] for seconds in syncs if phase in seconds])

    return Syncs(
        count=len(syncs),
        fenced=fenced,
        pause_seconds=of("pause"),
        flush_seconds=of("flush"),
        score_seconds=of("score"),
        step_seconds=of("step"),
        load_seconds=of("load"),
        stall_seconds=of("stall"),
    )
