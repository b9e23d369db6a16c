"""The worker's figures for Prometheus, under the catalogue's names. Owns the counts and the collector."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from asyncppo.metrics import old_logit as names


@dataclass
class Tally:
    """Counts since the start. waiting: segments in the learner's queue at its newest answer. loads: by result; refused: by reason."""

    waiting: int = 0
    scored_tokens: int = 0
    scored_segments: int = 0
    pulled_bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    loads: Counter[str] = field(default_factory=Counter)


class OldLogitMetrics:
    """Histograms that are observed; everything else is collected from the tally at each scrape. version: what is held now."""

    def __init__(self, registry: CollectorRegistry, tally: Tally, version: Callable[[], int]) -> None:
        self.score_seconds = names.SCORE_SECONDS.histogram(registry)
        self.load_seconds = names.LOAD_SECONDS.histogram(registry)
        registry.register(_Collected(tally, version))


class _Collected(Collector):
    def __init__(self, tally: Tally, version: Callable[[], int]) -> None:
        self._tally = tally
        self._version = version

    def collect(self) -> Iterable[Family]:
        """All families that are not histograms, in the catalogue's order."""
        tally, version = self._tally, self._version()
        for metric, value in (
            (names.LOADED_VERSIONS, int(version >= 0)),
            (names.NEWEST_VERSION, version),
            (names.QUEUE, tally.waiting),
            (names.SCORED_TOKENS, tally.scored_tokens),
            (names.SCORED_SEGMENTS, tally.scored_segments),
        ):
            yield metric.samples([((), float(value))])
        for by, counts in ((names.REFUSED_SEGMENTS, tally.refused), (names.LOADS, tally.loads)):
            yield by.samples([((label,), float(count)) for label, count in sorted(counts.items())])
        yield names.PULLED_BYTES.samples([((), float(tally.pulled_bytes))])
