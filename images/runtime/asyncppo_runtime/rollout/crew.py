"""The episodes at work: leases in, one task per episode, finished trajectories out. Owns how many run, how fast new ones begin when
none succeeds, and what becomes of each.

Does not own what an episode does (`agent.py`) nor whether sampling is allowed (`membership.py`, through the gate).
"""

import asyncio
import logging
from functools import partial

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.printable import printable
from asyncppo.wire.experience import Lease
from asyncppo_runtime.rollout.agent import Agent
from asyncppo_runtime.rollout.engines.interface import EngineError
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.link import LearnerLink
from asyncppo_runtime.rollout.outbox import Outbox
from asyncppo_runtime.rollout.standing import Standing
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.rollout.undisturbed import CANCELLED

GATHER_SECONDS = 0.002  # episodes that end together are replaced together
RETRY_SECONDS = 0.5
USUAL = frozenset({"AtCapacity", "SyncActive", "StaleVersion", "NotReady"})  # nothing to tell: they pass by themselves
MOST_ENGINE_FAILURES = 3  # in a row, without one finished episode between
FAILINGS = frozenset({"environment_error", "environment_timeout"})
PATIENT_FAILINGS = 8  # in a row, before leases are asked for more slowly; and so many at once from there on
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 0.02, 5.0  # doubled for each further PATIENT_FAILINGS in a row

log = logging.getLogger(__name__)


class Crew:
    """concurrency: episodes at once.

    episodes: the unfinished ones, by lease. failed: done, with the error, when the engine (or this program) cannot go on.
    """

    def __init__(
        self,
        concurrency: int,
        agent: Agent,
        link: LearnerLink,
        gate: Gate,
        outbox: Outbox,
        standing: Standing,
        tally: Tally,
    ) -> None:
        self.episodes: dict[int, Episode] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._concurrency = concurrency
        self._agent = agent
        self._link = link
        self._gate = gate
        self._outbox = outbox
        self._standing = standing
        self._tally = tally
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._hiring = True
        self._engine_failures = 0
        self._failings = 0
        self._told = ""

    async def run(self) -> None:
        """Keep `concurrency` episodes running for as long as leases can be had."""
        while self._hiring:
            await self._gate.passed()
            await self._rested()
            free = self._concurrency - len(self._tasks)
            if self._failings >= PATIENT_FAILINGS:
                free = min(free, PATIENT_FAILINGS)
            if free <= 0:
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(GATHER_SECONDS)
                continue
            await asyncio.sleep(await self._hire(free))

    async def _rested(self) -> None:
        """Where no episode succeeds, each would only burn a lease: a task's attempts are counted, and so are the job's."""
        rest = rest_seconds(self._failings)
        if rest:
            await asyncio.sleep(rest)
            await self._gate.passed()

    async def _hire(self, count: int) -> float:
        """Ask for leases; seconds to wait before asking again."""
        guard = self._standing.guard
        try:
            reply = await self._link.lease(count, guard.version)
        except (UnreachableError, RefusedError) as error:
            self._tell(f"no leases: {error}")
            return RETRY_SECONDS
        stale = self._standing.guard.incarnation != guard.incarnation or not self._hiring
        for lease in reply.leases:
            if stale:
                self._outbox.give_back(lease.lease_id)
            else:
                self._start(lease)
        if reply.leases or reply.reason in USUAL:
            self._told = ""
        else:
            self._tell(f"no leases: {reply.reason}")
        return 0.0 if reply.leases else reply.retry_after_seconds

    def drop(self, lease_id: int, reason: str) -> None:
        """Stop working on a lease; its tokens are discarded here, `reason` says why."""
        episode = self.episodes.pop(lease_id, None)
        if episode is None:
            return
        self._tally.discarded_tokens[reason] += episode.sampled_tokens
        episode.dropped = True
        task = self._tasks.pop(lease_id)
        task.cancel()
        self._changed.set()

    def drop_all(self, reason: str) -> None:
        """Stop working on all leases and give them back."""
        for lease_id in list(self.episodes):
            self.drop(lease_id, reason)
            self._outbox.give_back(lease_id)

    def stop_hiring(self) -> None:
        """Take no more leases."""
        self._hiring = False
        self._changed.set()

    def _start(self, lease: Lease) -> None:
        episode = Episode(lease)
        self.episodes[lease.lease_id] = episode
        task = asyncio.get_running_loop().create_task(self._play(episode))
        self._tasks[lease.lease_id] = task
        task.add_done_callback(partial(self._watch, episode))

    async def _play(self, episode: Episode) -> None:
        try:
            await self._agent.play(episode)
        except EngineError as error:
            self._engine_failed(episode, error)
            return
        if episode.dropped:
            return
        self._engine_failures = 0
        self._ended(episode)

    def _ended(self, episode: Episode) -> None:
        self._tally.trajectories[episode.end_reason] += 1
        self._tally.sampling_seconds += episode.sampling_seconds
        self._tally.environment_seconds += episode.environment_seconds
        self._count(episode)
        self._outbox.put(episode.trajectory())
        self._forget(episode.lease.lease_id)

    def _count(self, episode: Episode) -> None:
        """One that samples nothing (its prompt is too long) is as good as one that fails."""
        if episode.error:
            log.warning("lease %d ended as %s: %s", episode.lease.lease_id, episode.end_reason, _line(episode.error))
        if episode.end_reason not in FAILINGS and episode.segments:
            self._failings = 0
            return
        self._failings += 1
        if self._failings == PATIENT_FAILINGS:
            log.error(
                "the last %d episodes all failed, the newest as %s%s; asking for leases more and more slowly until one succeeds",
                self._failings,
                episode.end_reason,
                f": {_line(episode.error)}" if episode.error else " before the model could speak",
            )

    def _engine_failed(self, episode: Episode, error: EngineError) -> None:
        log.error("lease %d is given back, the engine failed: %s", episode.lease.lease_id, _line(str(error)))
        self._tally.discarded_tokens["engine_error"] += episode.sampled_tokens
        self._forget(episode.lease.lease_id)
        self._outbox.give_back(episode.lease.lease_id)
        self._engine_failures += 1
        if self._engine_failures >= MOST_ENGINE_FAILURES and not self.failed.done():
            self.failed.set_exception(error)

    def _forget(self, lease_id: int) -> None:
        self.episodes.pop(lease_id, None)
        self._tasks.pop(lease_id, None)
        self._changed.set()

    def _watch(self, episode: Episode, task: "asyncio.Task[None]") -> None:
        """An error nobody foresaw is the worker's end, not one episode's. One that is cancelled before it begins is another's doing."""
        if task.cancelled():
            if not episode.dropped:
                episode.end("environment_error", CANCELLED)
                self._ended(episode)
        elif (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

    def _tell(self, message: str) -> None:
        """Log a state once, not at every retry."""
        if message and message != self._told:
            log.info("%s", _line(message))
        self._told = message


def _line(text: str) -> str:
    """Others' words on one line of the log."""
    return printable(text, lines=False)


def rest_seconds(failings: int) -> float:
    """How long to wait before asking for leases after so many failed episodes in a row."""
    if failings < PATIENT_FAILINGS:
        return 0.0
    doublings = min(failings // PATIENT_FAILINGS - 1, 16)
    return min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2.0**doublings)
