"""What the runner knows of its roles: polls the learner's status, follows metrics.jsonl, reads the rollouts' clocks, feels pulses.

Owns asking and remembering. Does not own what is done about it (`runner.py`) nor how it is shown (`view.py`).
"""

import asyncio
import time
from collections.abc import Mapping

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from asyncppo.errors import UnreachableError
from asyncppo.local.roles import Addresses
from asyncppo.metrics import rollout as rollout_metrics
from asyncppo.report.history import History
from asyncppo.report.measures import LearnerStatus
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient

ANSWER_TIMEOUT = 5.0
CLOCKS = {
    rollout_metrics.SAMPLING_SECONDS.name: "sampling",
    rollout_metrics.ENVIRONMENT_SECONDS.name: "environment",
    rollout_metrics.PAUSED_SECONDS.name: "paused",
}
"""The rollouts' counters of seconds and what they are called in a summary."""


class Clock:
    """Adds up counters that start again from 0 whenever their program does."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def read(self, counters: Mapping[str, float]) -> None:
        """Take a reading."""
        for name, value in counters.items():
            if value < self._now.get(name, 0.0):
                self._before[name] = self._before.get(name, 0.0) + self._now[name]
            self._now[name] = value

    @property
    def totals(self) -> dict[str, float]:
        """Totals over all lives of the program."""
        return {name: self._before.get(name, 0.0) + value for name, value in self._now.items()}


class Feed:
    """Polls. `status` is the newest answer of the learner, None before the first; `heard` says when (monotonic seconds)."""

    def __init__(self, client: WireClient, addresses: Addresses, history: History) -> None:
        self._client = client
        self._addresses = addresses
        self.history = history
        self.status: LearnerStatus | None = None
        self.heard = time.monotonic()
        self.clocks = {name: Clock() for name in addresses.rollouts}

    async def poll(self) -> None:
        """Ask the learner and read what it wrote. A learner that does not answer leaves everything as it was."""
        try:
            self.status = await fetch_status(self._client, self._addresses.learner_url)
            self.heard = time.monotonic()
        except UnreachableError:
            pass  # shown as the age of the last answer; the supervisor and the pulse decide what it means
        self.history.follow()

    async def read_clocks(self) -> None:
        """Read the rollouts' counters of seconds."""
        await asyncio.gather(*(self._read_clock(name) for name in self.clocks))

    async def feel_pulse(self, role: str) -> bool:
        """Whether a role answers on /healthz."""
        return await self._open_route(self._addresses.of(role) + routes.HEALTHZ) is not None

    def rollout_time(self, alive: Mapping[str, float], concurrency: int) -> dict[str, dict[str, float]]:
        """Rollout → activity → seconds of the worker: the mean over its `concurrency` episodes at once, and the rest as `idle`.

        alive: seconds that each rollout's processes have run.
        """
        return {name: shares(clock.totals, alive.get(name, 0.0), concurrency) for name, clock in self.clocks.items()}

    async def _read_clock(self, name: str) -> None:
        text = await self._open_route(self._addresses.of(name) + routes.METRICS)
        if text is not None:
            self.clocks[name].read(parse_clock(text))

    async def _open_route(self, url: str) -> str | None:
        try:
            status, body = await self._client.fetch("GET", url, ANSWER_TIMEOUT)
        except UnreachableError:
            return None
        return body.decode(errors="replace") if status == 200 else None


def shares(totals: Mapping[str, float], alive: float, concurrency: int) -> dict[str, float]:
    """Seconds of one rollout by activity. Sampling and environment are summed over episodes, pauses and `alive` are the worker's."""
    if not totals:
        return {}
    seconds = {name: total if name == "paused" else total / concurrency for name, total in totals.items()}
    return {**seconds, "idle": max(0.0, alive - sum(seconds.values()))}


async def fetch_status(client: WireClient, learner: str, timeout: float = ANSWER_TIMEOUT) -> LearnerStatus:
    """GET /v1/status. Raises UnreachableError."""
    status, content = await client.fetch("GET", learner + routes.STATUS, timeout)
    if status != 200:
        raise UnreachableError(f"{learner}{routes.STATUS}: status {status}")
    try:
        return msgspec.json.decode(content, type=LearnerStatus)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UnreachableError(f"{learner}{routes.STATUS}: {type(error).__name__} {error}") from error


async def request_stop(client: WireClient, learner: str, timeout: float) -> None:
    """POST /v1/stop: checkpoint and stop. Raises UnreachableError."""
    status, _ = await client.fetch("POST", learner + routes.STOP, timeout)
    if status != 200:
        raise UnreachableError(f"{learner}{routes.STOP}: status {status}")


def parse_clock(text: str) -> dict[str, float]:
    """Activity → seconds from a rollout's /metrics; empty when it has none of them."""
    seconds: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            activity = CLOCKS.get(sample.name)
            if activity is not None:
                seconds[activity] = seconds.get(activity, 0.0) + sample.value
    return seconds
