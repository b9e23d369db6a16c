"""One rollout worker put together: engine, crew, outbox, membership, control port; and its life from start to good-bye.

Owns composition and the end. Life: engine up, port up, join, then heartbeats say what to load and when to sample; at last drained,
parked, or failed. Does not own the command line (`__main__.py`).
"""

import asyncio
import logging
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import RefusedError, UnreachableError, UserError
from asyncppo.sync.columns import column_of
from asyncppo.sync.member import MemberGuard, Mode
from asyncppo.wire.client import WireClient
from asyncppo_runtime.environments.registry import environment_factory
from asyncppo_runtime.policy import build_tokenizer
from asyncppo_runtime.rollout.agent import Agent, AgentSettings
from asyncppo_runtime.rollout.crew import Crew
from asyncppo_runtime.rollout.engines.interface import Engine, EngineError, EngineLostError
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.heart import Heart
from asyncppo_runtime.rollout.holds import Holds
from asyncppo_runtime.rollout.link import LearnerLink
from asyncppo_runtime.rollout.loader import Loader
from asyncppo_runtime.rollout.membership import Membership
from asyncppo_runtime.rollout.metrics import Gauges, RolloutMetrics
from asyncppo_runtime.rollout.outbox import Outbox
from asyncppo_runtime.rollout.service import control_application
from asyncppo_runtime.rollout.standing import Standing
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.rollout.undisturbed import undisturbed
from asyncppo_runtime.rollout.uploads import Uploads
from asyncppo_runtime.weights.pull import HttpTransport

LEAVE_RETRY_SECONDS = 0.2
LAST_WORDS_SECONDS = 3.0
NOT_READY = {
    Mode.OUT: "not registered with the learner",
    Mode.JOINING: "no verified version is loaded yet",
    Mode.PARKED: "the job is over",
}

log = logging.getLogger(__name__)


class Worker:
    """A rollout worker of `job`.

    client: an open WireClient with the job's token. learner: its base URL. directory: for pulled weights.
    Raises UserError for an environment or tokenizer that cannot be made.
    """

    def __init__(
        self, job: AsyncPPOJob, engine: Engine, client: WireClient, *, name: str, learner: str, directory: Path
    ) -> None:
        spec = job.spec
        self._engine = engine
        self._registry = CollectorRegistry()
        self._gate = gate = Gate()
        self._tally = tally = Tally()
        self._stop = asyncio.Event()
        self._ending = False
        self._standing = standing = Standing(MemberGuard(job_uid=job.metadata.uid, name=name))
        self._outbox = outbox = Outbox(column_of(spec.old_logits.strategy, spec.old_logits.scoring).flushes)
        self._link = link = LearnerLink(client, learner, standing)
        metrics = RolloutMetrics(self._registry, tally, self._gauges)
        agent = Agent(
            AgentSettings.of(spec), engine, build_tokenizer(spec), environment_factory(spec.environment), gate, tally
        )
        self._crew = crew = Crew(spec.rollout.concurrency, agent, link, gate, outbox, standing, tally)
        self._uploads = uploads = Uploads(link, outbox, crew, tally)
        loader = Loader(engine, HttpTransport(client.session, learner.rstrip("/"), directory), tally)
        self._membership = membership = Membership(standing, link, engine, gate, loader, crew, uploads, metrics, tally)
        self._heart = Heart(membership, link, crew, outbox, engine, gate, tally)

    @property
    def holds(self) -> Holds:
        """What the environments' code does to the event loop."""
        return self._tally.holds

    def stop(self) -> None:
        """Drain, and end `run`."""
        self._stop.set()

    def application(self, token: str) -> web.Application:
        """The control port's application: probes and metrics at once, commands once joined."""
        return control_application(token, self._registry, self._not_ready, self._membership)

    async def run(self, url: str, grace_seconds: float) -> None:
        """Work until `stop`, then hand everything back within `grace_seconds`.

        url: of the control port, which must be open, as the coordinator dials it.

        Raises UserError when the engine cannot start, EngineError when it fails later, RefusedError when the learner refuses
        this worker for good.
        """
        loops: list[asyncio.Task[None]] = []
        self._membership.url = url
        try:
            await self._started()
            loops = [
                asyncio.create_task(undisturbed(loop, lambda: self._ending))
                for loop in (self._heart.run, self._crew.run, self._uploads.run)
            ]
            await undisturbed(lambda: self._until_told(loops), self._stop.is_set)
            if self._standing.guard.mode is not Mode.OUT:
                await undisturbed(lambda: self._farewell(grace_seconds), self._stop.is_set)
            self._ending = True
            await _cancelled(loops)
            await undisturbed(self._stop.wait, self._stop.is_set)
        finally:
            self._ending = True
            self._crew.stop_hiring()
            self._crew.drop_all("stopped")
            await _cancelled(loops)
            await self._last_words()
            await self._engine.close()

    async def _started(self) -> None:
        try:
            await self._engine.start()
        except EngineLostError:
            raise
        except EngineError as error:
            raise UserError(f"the engine cannot start: {error}") from error
        await self._engine.pause()

    async def _until_told(self, loops: list[asyncio.Task[None]]) -> None:
        """Until stop, drain or the job's end. A loop that ends before that has failed, and so has the worker."""
        events = (self._stop, self._membership.draining, self._membership.parked)
        signals = [asyncio.create_task(_set(event)) for event in events]
        signals.append(asyncio.create_task(self._engine_lost()))
        try:
            done, _ = await asyncio.wait([*loops, *signals, self._crew.failed], return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            for task in signals:
                task.cancel()

    async def _engine_lost(self) -> None:
        raise await self._engine.lost()

    async def _farewell(self, grace_seconds: float) -> None:
        """Give leases back, deliver what is finished, leave. Heartbeats and commands go on meanwhile: a sync may be under way."""
        ending = "the job is over" if self._membership.parked.is_set() else "draining"
        log.info(
            "%s: %d episodes go back, %d trajectories to deliver",
            ending,
            len(self._crew.episodes),
            len(self._outbox.unacknowledged),
        )
        self._crew.stop_hiring()
        self._crew.drop_all("drained")
        try:
            async with asyncio.timeout(grace_seconds):
                await self._leave()
        except TimeoutError:
            log.warning(
                "could not leave in good order within %.0f s; %d trajectories were not delivered, the learner will lease them again",
                grace_seconds,
                len(self._outbox.unacknowledged),
            )

    async def _leave(self) -> None:
        """Until the learner lets go: not while a sync this worker is part of is open."""
        while True:
            try:
                await self._uploads.send()
                reply = await self._link.leave()
            except UnreachableError as error:
                log.debug("not left yet: %s", error)
            except RefusedError as refused:
                if refused.status < 500 and refused.reason != "SyncActive":
                    log.info("nothing to leave: %s", refused)
                    return
            else:
                log.info("left in good order")
                await self._membership.heard(reply, self._standing.guard.incarnation)
                return
            await asyncio.sleep(LEAVE_RETRY_SECONDS)

    async def _last_words(self) -> None:
        """After a failure: what is still here goes back at once, instead of when its leases expire. Best effort."""
        if self._standing.guard.mode is Mode.OUT or not (self._outbox.returns or self._outbox.unacknowledged):
            return
        try:
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._uploads.send()
        except (TimeoutError, UnreachableError, RefusedError) as error:
            log.warning("leases could not be given back: %s", error)

    def _not_ready(self) -> str:
        return NOT_READY.get(self._standing.guard.mode, "")

    def _gauges(self) -> Gauges:
        guard = self._standing.guard
        return Gauges(
            policy_version=guard.version,
            incarnation=guard.incarnation,
            episodes=len(self._crew.episodes),
            requests=self._engine.running,
            outbox=len(self._outbox),
            paused=not self._gate.is_open,
            kv_usage=self._engine.kv_usage,
        )


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
