"""The worker as a member: obeys the coordinator's commands and the learner's advice. Owns the deeds and their order.

What may be obeyed is decided by `asyncppo.sync.member.MemberGuard`, which is pure; this room stops and starts the engine for it.
Deeds never overlap: one lock holds them all. The guard changes before the deed where sampling is forbidden, after it where it is
allowed.
"""

import asyncio
import logging
from time import monotonic, perf_counter

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.sync.member import Advice, MemberGuard
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import HeartbeatReply, MemberState
from asyncppo.wire.syncing import Flush, Load, Loaded, Pause, Paused, Resume, Resumed
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.rollout.crew import Crew
from asyncppo_runtime.rollout.engines.interface import Engine
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.link import LearnerLink
from asyncppo_runtime.rollout.loader import Loader
from asyncppo_runtime.rollout.metrics import RolloutMetrics
from asyncppo_runtime.rollout.standing import Standing
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.rollout.uploads import Uploads

RETRY_SECONDS = (0.2, 2.0)  # first and longest wait between joins
TELL_SECONDS = 10.0

log = logging.getLogger(__name__)


class Membership:
    """url: where the control port is, as the coordinator dials it.

    parked: set when the job is over. draining: set when this worker has been told to go.
    """

    def __init__(
        self,
        standing: Standing,
        link: LearnerLink,
        engine: Engine,
        gate: Gate,
        loader: Loader,
        crew: Crew,
        uploads: Uploads,
        metrics: RolloutMetrics,
        tally: Tally,
    ) -> None:
        self.parked = asyncio.Event()
        self.draining = asyncio.Event()
        self._standing = standing
        self.url = ""
        self._link = link
        self._engine = engine
        self._gate = gate
        self._loader = loader
        self._crew = crew
        self._uploads = uploads
        self._metrics = metrics
        self._tally = tally
        self._deeds = asyncio.Lock()
        self._paused_at = 0.0

    @property
    def guard(self) -> MemberGuard:
        """What is known of the protocol now."""
        return self._standing.guard

    @guard.setter
    def guard(self, guard: MemberGuard) -> None:
        self._standing.guard = guard

    @property
    def busy(self) -> bool:
        """Whether a deed is under way: a reply that comes now is not acted upon, the next one is."""
        return self._deeds.locked()

    # --- commands of a coordinator ------------------------------------------------------------------------------------
    async def pause(self, message: Pause) -> Paused:
        """Stop sampling; answers when the last token of every request is in its episode."""
        async with self._deeds:
            started = perf_counter()
            self.guard = self.guard.pause(message, monotonic())
            await self._stop()
            return Paused(self.guard.envelope(), self.guard.version, perf_counter() - started)

    async def flush(self, message: Flush) -> Manifest:
        """Upload what is unscored of the version, then say what that is."""
        async with self._deeds:
            self.guard.flush(message)
            try:
                entries = await self._uploads.flush(message.version)
            except UnreachableError as error:
                raise RefusedError(503, "LearnerUnreachable", f"flush: {error}; send it again") from error
            return Manifest(self.guard.name, self.guard.incarnation, message.version, entries)

    async def load(self, message: Load) -> Loaded:
        """Serve another version, verified."""
        async with self._deeds:
            started = perf_counter()
            guard, wanted = self.guard.load(message)
            error = 0.0
            if wanted:
                error = await self._serve(message.record, message.canary)
                guard = guard.loaded(message.record.version)
            self.guard = guard
            return Loaded(guard.envelope(), guard.version, self._loader.weights_hash, perf_counter() - started, error)

    async def resume(self, message: Resume) -> Resumed:
        """Sample on."""
        async with self._deeds:
            await self._go(self.guard.resume(message))
            return Resumed(self.guard.envelope(), self.guard.version)

    # --- the learner ----------------------------------------------------------------------------------------------------
    async def join(self) -> None:
        """Become a member (again): what to load comes with the next heartbeat. Waits for a learner that does not answer; raises
        RefusedError when it refuses for good."""
        wait, longest = RETRY_SECONDS
        told = -TELL_SECONDS
        while True:
            try:
                answer = await self._link.join(self.url)
                break
            except (UnreachableError, RefusedError) as error:
                if isinstance(error, RefusedError) and error.status < 500:
                    raise
                if monotonic() - told > TELL_SECONDS:
                    told = monotonic()
                    log.info("waiting for the learner: %s", error)
            await asyncio.sleep(wait)
            wait = min(longest, wait * 2)
        self.guard = self.guard.joined(answer)
        self._tally.joins += 1
        log.info("joined as incarnation %d, epoch %d", answer.incarnation, answer.epoch)

    async def heard(self, reply: HeartbeatReply, incarnation: int) -> None:
        """Act on an answer of the learner to a message sent as `incarnation`. Raises RefusedError, UnreachableError when a load or
        a Ready failed: the next heartbeat asks for it again."""
        async with self._deeds:
            if reply.state is MemberState.DRAINING and incarnation == self.guard.incarnation:
                self.draining.set()
            guard, advice = self.guard.heard(reply, incarnation, monotonic())
            await self._take(guard, advice)
            match advice:
                case Advice.LOAD if reply.record is not None:
                    await self._serve(reply.record, None)
                    await self._announce()
                case Advice.ANNOUNCE:
                    await self._announce()
                case Advice.REJOIN:
                    log.warning("incarnation %d is fenced; joining again", incarnation)
                    self._crew.drop_all("fenced")
                case Advice.PARK:
                    self.parked.set()

    async def _announce(self) -> None:
        """Tell the learner what is loaded; sample if it says so. Whatever else it wants, it says again at the next heartbeat."""
        incarnation = self.guard.incarnation
        reply = await self._link.ready(self.guard.version, self._loader.weights_hash)
        await self._take(*self.guard.heard(reply, incarnation, monotonic()))

    async def _take(self, guard: MemberGuard, advice: Advice) -> None:
        if advice is Advice.RESUME:
            await self._go(guard)
            return
        stop = self.guard.samples and not guard.samples
        self.guard = guard
        if stop:
            await self._stop()

    # --- deeds ----------------------------------------------------------------------------------------------------------
    async def _serve(self, record: VersionRecord, canary: Canary | None) -> float:
        """Load `record`; the canary's error. The engine is stopped."""
        loaded = await self._loader.load(record, canary)
        self.guard = self.guard.loaded(record.version)
        self._metrics.load_seconds.observe(loaded.seconds)
        log.info("version %d is loaded (%.2f s)", record.version, loaded.seconds)
        return loaded.canary_error

    async def _stop(self) -> None:
        if self._gate.is_open:
            self._paused_at = perf_counter()
        self._gate.close()
        await self._engine.pause()
        await self._gate.drained()

    async def _go(self, guard: MemberGuard) -> None:
        await self._engine.resume()
        self.guard = guard
        if self._paused_at:
            seconds = perf_counter() - self._paused_at
            self._paused_at = 0.0
            self._metrics.pause_seconds.observe(seconds)
            self._tally.paused_seconds += seconds
        self._gate.open()
