"""The worker's loop: join, take, pull what it is scored with, score, hand in. Owns that order and what follows a failure.

Nothing here is kept: work that is not handed in goes back when its lease is over, so a worker may die at any point.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic, perf_counter
from typing import TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.old_logits import (
    GiveBackWork,
    Scored,
    ScoredReply,
    SegmentScore,
    TakeWork,
    Work,
    WorkerJoin,
    WorkerJoined,
)
from asyncppo.wire.server import application
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.old_logit.held import HeldModel
from asyncppo_runtime.old_logit.metrics import OldLogitMetrics, Tally
from asyncppo_runtime.old_logprobs.errors import HeldWeightsError
from asyncppo_runtime.weights.errors import WeightsError
from asyncppo_runtime.weights.pull import HttpTransport

WAIT_SECONDS = 10.0
CALL_SECONDS = 30.0
RETRY_SECONDS = (0.2, 2.0)  # first and longest wait between calls to a learner that does not answer
TELL_SECONDS = 10.0
NOT_JOINED = "NotJoined"

log = logging.getLogger(__name__)
T = TypeVar("T")


class Worker:
    """learner: base URL. directory: for pulled weights; only the newest is kept there."""

    def __init__(self, job: AsyncPPOJob, client: WireClient, *, name: str, learner: str, directory: Path) -> None:
        self._job_uid = job.metadata.uid
        self._client = client
        self._name = name
        self._learner = learner.rstrip("/")
        self._transport = HttpTransport(client.session, self._learner, directory, route=routes.TRAIN_WEIGHTS)
        self._held = HeldModel(job.spec)
        self._registry = CollectorRegistry()
        self._tally = Tally()
        self._metrics = OldLogitMetrics(self._registry, self._tally, lambda: self._held.version)
        self._incarnation = 0
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End `run` after the forward that is under way."""
        self._stop.set()

    def application(self, token: str) -> web.Application:
        """Probes and metrics; the worker takes no commands."""
        return application(token, self._registry, lambda: "" if self._incarnation else "waiting for the learner")

    async def run(self, url: str) -> None:
        """Work until `stop`. url: of this worker's port. Raises RefusedError when the learner refuses it for good."""
        await self._join(url)
        while not self._stop.is_set():
            try:
                work = await self._patiently(self._take)
                if work is None:
                    return
                self._tally.waiting = work.waiting
                if work.finished:
                    log.info("the job is over")
                    await self._stop.wait()
                elif work.record is not None and work.segments:
                    await self._do(work, work.record)
            except RefusedError as refused:
                if refused.reason != NOT_JOINED:
                    raise
                log.warning("the learner does not know this worker (any more): %s", refused.message)
                await self._join(url)

    async def _join(self, url: str) -> None:
        async def call() -> WorkerJoined:
            message = WorkerJoin(self._job_uid, self._name, url)
            return await self._client.post(self._learner, routes.WORKER_JOIN, message, WorkerJoined, CALL_SECONDS)

        joined = await self._patiently(call)
        if joined is not None:
            self._incarnation = joined.incarnation
            log.info("joined as incarnation %d", joined.incarnation)

    async def _take(self) -> Work:
        message = TakeWork(self._envelope(), self._held.version, WAIT_SECONDS)
        return await self._client.post(self._learner, routes.WORKER_TAKE, message, Work, WAIT_SECONDS + CALL_SECONDS)

    async def _do(self, work: Work, record: VersionRecord) -> None:
        if self._held.version != record.version or self._held.train_hash != record.train_hash:
            try:
                await self._load(record)
            except (WeightsError, HeldWeightsError) as error:
                log.warning("version %d cannot be loaded: %s", record.version, error)
                self._tally.loads["rejected"] += 1
                self._tally.refused["version_unavailable"] += len(work.segments)
                await self._give_back(record.version, str(error))
                return
        started = perf_counter()
        made = await asyncio.to_thread(self._held.score, work.segments)
        self._metrics.score_seconds.observe(perf_counter() - started)
        scores = [SegmentScore(each.lease_id, each.index, each.digest, old.double().tolist()) for each, old in made]
        message = Scored(self._envelope(), self._held.version, self._held.train_hash, scores)
        reply = await self._patiently(
            lambda: self._client.post(self._learner, routes.WORKER_SCORES, message, ScoredReply, CALL_SECONDS)
        )
        if reply is not None:
            self._tally.scored_segments += reply.recorded
            self._tally.scored_tokens += sum(len(score.logprobs) for score in scores)
            if reply.refused:
                self._tally.refused["refused"] += reply.refused

    async def _load(self, record: VersionRecord) -> None:
        started = perf_counter()
        path = await self._transport.fetch(record)
        await asyncio.to_thread(self._held.load, path, record)
        self._transport.keep({record.version})
        self._tally.loads["loaded"] += 1
        self._tally.pulled_bytes += record.file_size
        self._metrics.load_seconds.observe(perf_counter() - started)
        log.info("version %d is loaded (%.2f s)", record.version, perf_counter() - started)

    async def _give_back(self, version: int, why: str) -> None:
        message = GiveBackWork(self._envelope(), version, why)
        await self._patiently(
            lambda: self._client.post(self._learner, routes.WORKER_GIVE_BACK, message, ScoredReply, CALL_SECONDS)
        )
        await self._pause(RETRY_SECONDS[1])

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Call until the learner answers; None when `stop` comes first. A refusal of the 5xx kind is no answer."""
        wait, longest = RETRY_SECONDS
        told = -TELL_SECONDS
        while not self._stop.is_set():
            answer = asyncio.ensure_future(call())
            stopped = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait({answer, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    return None
                return answer.result()
            except UnreachableError as error:
                problem: Exception = error
            except RefusedError as error:
                if error.status < 500:
                    raise
                problem = error
            finally:
                answer.cancel()
                stopped.cancel()
            if monotonic() - told > TELL_SECONDS:
                told = monotonic()
                log.info("waiting for the learner: %s", problem)
            await self._pause(wait)
            wait = min(longest, wait * 2)
        return None

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    def _envelope(self) -> Envelope:
        return Envelope(job_uid=self._job_uid, epoch=0, target=self._name, incarnation=self._incarnation)
