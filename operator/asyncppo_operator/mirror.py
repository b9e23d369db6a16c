"""The per-job series, made at scrape time from the loops that are there: a deleted job leaves nothing behind.

Owns the mapping. Does not own the entries (`asyncppo.metrics.operator`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from asyncppo.api.status import Phase
from asyncppo.metrics import operator as metrics
from asyncppo.metrics.learner_collector import version_skew
from asyncppo.metrics.metric import Metric
from asyncppo.report.measures import LearnerStatus
from asyncppo_operator.reconcile import JobLoop

CONDITION_VALUES = {"True": 1.0, "False": 0.0}
Labels = tuple[str, ...]


class JobMirror(Collector):
    """`loops()`: the jobs of now."""

    def __init__(self, loops: Callable[[], Iterable[JobLoop]]) -> None:
        self._loops = loops

    def describe(self) -> list[Family]:
        """Nothing to check at registration."""
        return []

    def collect(self) -> Iterator[Family]:
        """Every per-job family, and the jobs by phase."""
        loops = list(self._loops())
        phases = Counter(str(loop.status.get("phase") or Phase.PENDING) for loop in loops)
        yield metrics.JOBS.samples([((phase.value,), phases[phase.value]) for phase in Phase])
        yield from self._declared(loops)
        heard = [(tuple(loop.key), loop, status) for loop in loops if (status := loop.probe.status) is not None]
        yield from _measured([(labels, status) for labels, _, status in heard])
        ages = [(labels, age) for labels, loop, _ in heard if (age := loop.probe.age) is not None]
        yield metrics.JOB_STATUS_AGE.samples(ages)
        yield from _syncs(loops)

    def _declared(self, loops: list[JobLoop]) -> Iterator[Family]:
        """What is known without asking the learner."""
        accepted = [(tuple(loop.key), loop, loop.job) for loop in loops]
        yield metrics.JOB_INFO.samples(
            [
                (
                    (
                        *labels,
                        job.spec.old_logits.strategy.value,
                        str(job.spec.old_logits.strategy.exact).lower(),
                        job.spec.rollout.engine.type.value,
                    ),
                    1.0,
                )
                for labels, _, job in accepted
                if job is not None
            ]
        )
        yield metrics.JOB_PHASE.samples(
            [((*loop.key, phase.value), float(loop.status.get("phase") == phase)) for loop in loops for phase in Phase]
        )
        yield metrics.JOB_CONDITION.samples(
            [
                ((*loop.key, str(c.get("type"))), CONDITION_VALUES.get(str(c.get("status")), -1.0))
                for loop in loops
                for c in loop.status.get("conditions") or []
            ]
        )
        yield metrics.JOB_STALENESS_BOUND.samples(
            [(labels, job.spec.staleness.max_versions) for labels, _, job in accepted if job is not None]
        )
        yield metrics.JOB_ROLLOUTS.samples(
            [
                ((*loop.key, state), float(rollouts.get(state) or 0))
                for loop in loops
                if (rollouts := loop.status.get("rollouts"))
                for state in ("desired", "ready")
            ]
        )
        yield metrics.JOB_FAILURES.samples(
            [
                ((*loop.key, str(role)), float(count))
                for loop in loops
                for role, count in (loop.status.get("failures") or {}).items()
            ]
        )


def _measured(heard: list[tuple[Labels, LearnerStatus]]) -> Iterator[Family]:
    """What the learners said last."""

    def each(metric: Metric, value: Callable[[LearnerStatus], float]) -> Family:
        return metric.samples([(labels, float(value(status))) for labels, status in heard])

    yield each(metrics.JOB_VERSION, lambda s: s.version)
    yield each(metrics.JOB_PROGRESS, lambda s: s.update / max(1, s.updates))
    yield each(metrics.JOB_REWARD, lambda s: s.last_reward)
    yield each(metrics.JOB_SKEW, version_skew)
    yield metrics.JOB_STALENESS.distribution([(labels, status.staleness.histogram) for labels, status in heard])
    yield each(metrics.JOB_STALENESS_MAX, lambda s: s.staleness.max)
    yield each(metrics.JOB_EXACT_COVERAGE, lambda s: s.old_logits.exact_coverage)
    yield each(metrics.JOB_VIOLATIONS, lambda s: s.old_logits.violations)
    yield each(metrics.JOB_LEDGER_BALANCED, lambda s: float(s.ledger.balanced))


def _syncs(loops: list[JobLoop]) -> Iterator[Family]:
    """What the coordinators did."""
    yield metrics.SYNCS.samples(
        [
            ((*loop.key, result), float(count))
            for loop in loops
            for result, count in sorted(loop.coordination.results.items())
        ]
    )
    yield metrics.SYNC_FENCED.samples([(tuple(loop.key), float(loop.coordination.fenced)) for loop in loops])
    yield metrics.SYNC_SECONDS.observed(
        [((*loop.key, phase), seen) for loop in loops for phase, seen in sorted(loop.coordination.seconds.items())]
    )
