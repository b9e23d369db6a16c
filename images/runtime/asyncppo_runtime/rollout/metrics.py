"""The worker's figures for Prometheus, under the catalogue's names. Owns the collector; the counting happens in `tally.py`."""

from collections.abc import Callable, Iterable

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from asyncppo.metrics import rollout
from asyncppo_runtime.rollout.tally import Tally


class Gauges(msgspec.Struct, frozen=True, kw_only=True):
    """What is true now."""

    policy_version: int
    incarnation: int
    episodes: int
    requests: int
    outbox: int
    paused: bool
    kv_usage: float


class RolloutMetrics:
    """Histograms that are observed, and everything else collected from the tally and `gauges` at each scrape."""

    def __init__(self, registry: CollectorRegistry, tally: Tally, gauges: Callable[[], Gauges]) -> None:
        self.pause_seconds = rollout.PAUSE_SECONDS.histogram(registry)
        self.load_seconds = rollout.LOAD_SECONDS.histogram(registry)
        registry.register(_Collected(tally, gauges))


class _Collected(Collector):
    def __init__(self, tally: Tally, gauges: Callable[[], Gauges]) -> None:
        self._tally = tally
        self._gauges = gauges

    def collect(self) -> Iterable[Family]:
        """All families, in the catalogue's order."""
        tally, now = self._tally, self._gauges()
        plain = [
            (rollout.POLICY_VERSION, now.policy_version),
            (rollout.INCARNATION, now.incarnation),
            (rollout.SAMPLED_TOKENS, tally.sampled_tokens),
            (rollout.EPISODES, now.episodes),
            (rollout.REQUESTS, now.requests),
            (rollout.OUTBOX, now.outbox),
            (rollout.SAMPLING_SECONDS, tally.sampling_seconds),
            (rollout.ENVIRONMENT_SECONDS, tally.environment_seconds),
            (rollout.HELD_SECONDS, tally.holds.seconds),
            (rollout.PAUSED_SECONDS, tally.paused_seconds),
            (rollout.PAUSED, now.paused),
            (rollout.PULLED_BYTES, tally.pulled_bytes),
            (rollout.CANARY_ERROR, tally.canary_error),
            (rollout.JOINS, tally.joins),
            (rollout.KV_CACHE_USAGE, now.kv_usage),
        ]
        for metric, value in plain:
            yield metric.samples([((), float(value))])
        for metric, counts in (
            (rollout.DISCARDED_TOKENS, tally.discarded_tokens),
            (rollout.TRAJECTORIES, tally.trajectories),
            (rollout.LOADS, tally.loads),
        ):
            yield metric.samples([((label,), float(value)) for label, value in counts.items()])
