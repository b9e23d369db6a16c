"""What a metric is: name, kind, help, labels, buckets; and how it becomes an instrument or a sample family.

Owns the shape and the naming rules. Does not own any metric (`learner.py`, `rollout.py`, `old_logit.py`, `operator.py`).
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

STALENESS_BUCKETS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

NAME = re.compile(r"^asyncppo_(learner|rollout|old_logit|operator)_[a-z0-9]+(_[a-z0-9]+)*$")
RESERVED_LABELS = frozenset({"job", "instance", "namespace", "pod", "container", "uid", "le", "quantile"})

# a `_created` gauge beside each counter would double the series and says nothing a graph needs
disable_created_metrics()  # type: ignore[no-untyped-call]


class Kind(StrEnum):
    """Prometheus types in use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric. `name` as Prometheus shows it (a counter's with `_total`). `buckets` only for histograms, without +Inf.

    ValueError on a name, label or bucket that breaks the house's rules.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise ValueError(f"{self.name}: a metric is called asyncppo_<part>_<what>_<unit>[_total]")
        if self.name.endswith("_total") != (self.kind is Kind.COUNTER):
            raise ValueError(f"{self.name}: counters, and only counters, end in _total")
        if bad := RESERVED_LABELS.intersection(self.labels):
            raise ValueError(f"{self.name}: the labels {sorted(bad)} belong to the scraper")
        if (self.kind is Kind.HISTOGRAM) != bool(self.buckets) or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"{self.name}: a histogram, and only a histogram, has rising buckets")

    def counter(self, registry: CollectorRegistry) -> Counter:
        """A counter on `registry`."""
        self._expect(Kind.COUNTER)
        return Counter(self.name, self.help, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """A gauge on `registry`."""
        self._expect(Kind.GAUGE)
        return Gauge(self.name, self.help, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """A histogram on `registry`."""
        self._expect(Kind.HISTOGRAM)
        return Histogram(self.name, self.help, self.labels, registry=registry, buckets=self.buckets)

    def samples(self, values: Iterable[tuple[tuple[str, ...], float]]) -> CounterMetricFamily | GaugeMetricFamily:
        """A family made at scrape time from (label values, value) pairs."""
        family: CounterMetricFamily | GaugeMetricFamily
        if self.kind is Kind.COUNTER:
            family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        else:
            self._expect(Kind.GAUGE)
            family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in values:
            family.add_metric(labels, value)
        return family

    def distribution(self, values: Iterable[tuple[tuple[str, ...], Mapping[int, int]]]) -> HistogramMetricFamily:
        """A histogram family made at scrape time from (label values, {integer value: count}) pairs."""
        self._expect(Kind.HISTOGRAM)
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, counts in values:
            buckets = [
                (f"{bound}", float(sum(n for value, n in counts.items() if value <= bound))) for bound in self.buckets
            ]
            buckets.append(("+Inf", float(sum(counts.values()))))
            family.add_metric(labels, buckets, float(sum(value * n for value, n in counts.items())))
        return family

    def observed(self, values: Iterable[tuple[tuple[str, ...], "Distribution"]]) -> HistogramMetricFamily:
        """A histogram family made at scrape time from (label values, distribution) pairs."""
        self._expect(Kind.HISTOGRAM)
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, seen in values:
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*self.buckets, float("inf")), seen.counts, strict=True):
                total += count
                buckets.append(("+Inf" if bound == float("inf") else f"{bound}", float(total)))
            family.add_metric(labels, buckets, seen.total)
        return family

    def _expect(self, kind: Kind) -> None:
        if self.kind is not kind:
            raise TypeError(f"{self.name} is a {self.kind}, not a {kind}")


class Distribution:
    """Observations of one histogram series whose life is shorter than the process's: counts per bucket, the last beyond all bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


def counter(name: str, text: str, *labels: str) -> Metric:
    """A counter's entry; `name` ends in _total."""
    return Metric(name, Kind.COUNTER, text, labels)


def gauge(name: str, text: str, *labels: str) -> Metric:
    """A gauge's entry."""
    return Metric(name, Kind.GAUGE, text, labels)


def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    """A histogram's entry."""
    return Metric(name, Kind.HISTOGRAM, text, labels, buckets)
