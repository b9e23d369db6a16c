"""What the operator measures of itself: calls to the API server, reconciles, watches, rights.

Owns the instruments that are counted up as things happen. Does not own the per-job series made at scrape time (`mirror.py`).
"""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from asyncppo.metrics import operator as metrics


class Telemetry(Collector):
    """The operator's own metrics on one registry; also what its readiness is judged by."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = metrics.API_REQUESTS.counter(registry)
        self._request_seconds = metrics.API_SECONDS.histogram(registry)
        self._reachable = metrics.API_REACHABLE.gauge(registry)
        self._reconciles = metrics.RECONCILES.counter(registry)
        self._reconcile_seconds = metrics.RECONCILE_SECONDS.histogram(registry)
        self._reconcile_errors = metrics.RECONCILE_ERRORS.counter(registry)
        self._wake_lag = metrics.WAKE_LAG.histogram(registry)
        self._watch_restarts = metrics.WATCH_RESTARTS.counter(registry)
        self._missing_rights = metrics.MISSING_RIGHTS.gauge(registry)
        self._leader = metrics.LEADER.gauge(registry)
        self._build = metrics.BUILD_INFO.gauge(registry)
        self._heard: dict[str, float] = {}
        self.unreachable_since: float | None = None
        self.missing: list[str] = []
        registry.register(self)

    def describe(self) -> list[Family]:
        """Nothing to check at registration."""
        return []

    def collect(self) -> Iterator[Family]:
        """Ages are told at scrape time: a watch that hangs must be seen growing old."""
        now = time.monotonic()
        yield metrics.WATCH_AGE.samples([((kind,), now - at) for kind, at in sorted(self._heard.items())])

    def build(self, version: str) -> None:
        """Which version this is."""
        self._build.labels(version).set(1)

    def api_call(self, verb: str, kind: str, status: int, seconds: float) -> None:
        """One call; status 0 when no answer came."""
        self._requests.labels(verb, kind, str(status)).inc()
        if verb != "watch":
            self._request_seconds.labels(verb).observe(seconds)
        self._reachable.set(float(status > 0))
        if status > 0:
            self.unreachable_since = None
        elif self.unreachable_since is None:
            self.unreachable_since = time.monotonic()

    def reconciled(self, result: str, seconds: float, lag: float, reason: str = "") -> None:
        """One reconcile: ok, error or forbidden; `lag` from the wake-up to its begin."""
        self._reconciles.labels(result).inc()
        self._reconcile_seconds.observe(seconds)
        self._wake_lag.observe(lag)
        if reason:
            self._reconcile_errors.labels(reason).inc()

    def heard(self, kind: str) -> None:
        """A watch said something, be it a bookmark or its regular end."""
        self._heard[kind] = time.monotonic()

    def watch_restarted(self, kind: str, reason: str) -> None:
        """A watch was begun anew because it broke."""
        self._watch_restarts.labels(kind, reason).inc()

    def watch_age(self, kind: str) -> float | None:
        """Seconds since a watch was heard of; None before the first time."""
        at = self._heard.get(kind)
        return None if at is None else time.monotonic() - at

    def rights(self, missing: list[tuple[str, str]]) -> None:
        """The (verb, resource) pairs that are missing now."""
        self._missing_rights.clear()
        for verb, resource in missing:
            self._missing_rights.labels(verb, resource).set(1)
        self.missing = [f"{verb} {resource}" for verb, resource in missing]

    def leading(self, leader: bool) -> None:
        """Whether this replica holds the Lease."""
        self._leader.set(float(leader))
