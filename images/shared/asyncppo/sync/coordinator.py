"""The driver of version sync: carries out the machine's commands over HTTP and feeds it what comes of them.

Owns sockets, deadlines and phase seconds. Decides nothing: `machine.transition` does. Any number of coordinators may run for one
job; the learner's ledger lets one win each epoch.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine

import msgspec

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.sync.columns import Phase
from asyncppo.sync.events import (
    Command,
    Event,
    LearnerAnswered,
    LearnerRefused,
    LearnerSilent,
    MemberAnswered,
    MemberRefused,
    MemberSilent,
    ToLearner,
    ToMember,
    Viewed,
    Watch,
)
from asyncppo.sync.limits import SyncLimits
from asyncppo.sync.machine import State, keep_paused, start, transition
from asyncppo.sync.reasons import Reason
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.experience import Manifest
from asyncppo.wire.syncing import Finish, Loaded, Paused, Resumed, SyncView

log = logging.getLogger(__name__)

LEARNER_ROUTES = {
    Phase.BEGIN: routes.SYNC_BEGIN,
    Phase.SCORE: routes.SYNC_SCORE,
    Phase.SEAL: routes.SYNC_SEAL,
    Phase.STEP: routes.SYNC_STEP,
    Phase.PUBLISH: routes.SYNC_PUBLISH,
    Phase.FINISH: routes.SYNC_FINISH,
}
MEMBER_ROUTES: dict[Phase, tuple[str, type[Paused] | type[Manifest] | type[Loaded] | type[Resumed]]] = {
    Phase.PAUSE: (routes.PAUSE, Paused),
    Phase.FLUSH: (routes.FLUSH, Manifest),
    Phase.LOAD: (routes.LOAD, Loaded),
    Phase.RESUME: (routes.RESUME, Resumed),
}
RETRY_SECONDS = 0.25
MEMBER_ATTEMPT_SECONDS = 0.25
LONGEST_BACKOFF = 5.0


class Coordinator:
    """Drives the syncs of one job until it is over.

    client: open, with the job's token. name: distinct among the job's coordinators, also over restarts. on_phase: called with the state after each change of phase (progress, metrics). `state` is always the newest.
    """

    def __init__(
        self,
        client: WireClient,
        learner_url: str,
        name: str,
        limits: SyncLimits,
        on_phase: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._learner = learner_url
        self._limits = limits
        self._on_phase = on_phase
        self._client = client
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seconds: dict[str, float] = {}
        self._entered = time.monotonic()
        self._paused_at: float | None = None
        self._watching: asyncio.Task[None] | None = None
        self._seen: tuple[SyncView, float] | None = None
        self._silences = 0
        self.state = State(coordinator=name, min_ready=limits.min_ready, pause_seconds=limits.pause_ttl)

    async def run(self) -> None:
        """Until the learner says the job is over. Cancelling it in mid-sync leaves an epoch that any coordinator can take over."""
        keeper = asyncio.create_task(self._keep_paused())
        try:
            _, commands = start(self.state)
            self._carry_out(commands)
            while self.state.phase is not Phase.OVER:
                self._take(await self._events.get())
        finally:
            for task in (keeper, *self._tasks):
                task.cancel()
            await asyncio.gather(keeper, *self._tasks, return_exceptions=True)

    def _take(self, event: Event) -> None:
        before = self.state
        self.state, commands = transition(before, event)
        if (self.state.phase, self.state.epoch) != (before.phase, before.epoch):
            self._clock(before)
            if self.state.phase in (Phase.IDLE, Phase.BEGIN) and before.phase is not Phase.IDLE:
                log.info("epoch %d: %s", before.epoch, " ".join(f"{k} {v:.3f}s" for k, v in self._seconds.items()))
            self._on_phase(self.state)
        for name in self.state.fenced:
            if name not in before.fenced:
                log.warning("epoch %d, %s: %s is fenced", self.state.epoch, before.phase, name)
        self._carry_out(commands)

    def _clock(self, before: State) -> None:
        """Phase seconds of the epoch: each phase by its name, `stall` from the first Pause to now."""
        now = time.monotonic()
        if before.phase in (Phase.IDLE, Phase.BEGIN):
            self._seconds, self._paused_at = {}, None
        else:
            name = before.phase.value.lower()
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._entered
        if self.state.phase is Phase.PAUSE and self._paused_at is None:
            self._paused_at = now
        self._entered = now

    def _carry_out(self, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case Watch():
                    # One look at a time; a newer question replaces a long poll.
                    if self._watching is not None:
                        self._watching.cancel()
                    self._watching = self._spawn(self._watch(command.wait))
                case ToLearner():
                    self._spawn(self._to_learner(command))
                case ToMember():
                    self._spawn(self._to_member(command))

    def _spawn(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- the learner ------------------------------------------------------------------------------------------------------
    async def _watch(self, wait: bool) -> None:
        """One look at the learner, however long it takes to get one."""
        while True:
            seconds = self._limits.watch if wait else 0.0
            try:
                path = f"{routes.SYNC}?wait={seconds}"
                view = await self._client.get(self._learner, path, SyncView, seconds + self._limits.learner)
                break
            except (RefusedError, UnreachableError) as error:
                await self._after_silence(error)
        self._silences = 0
        idle_on_news = wait and (view.wanted or view.open) and not view.finished
        if idle_on_news:
            # There is something to sync for that this coordinator leaves alone (too few members, another's epoch): look again later.
            await asyncio.sleep(RETRY_SECONDS)
        self._events.put_nowait(Viewed(view, stalled=self._stalled(view)))

    def _stalled(self, view: SyncView) -> bool:
        """Whether the open epoch has looked the same for longer than the patience."""
        now = time.monotonic()
        if self._seen is None or self._seen[0] != view:
            self._seen = (view, now)
        return view.open and now - self._seen[1] > self._limits.stall

    async def _to_learner(self, command: ToLearner) -> None:
        message = command.message
        if isinstance(message, Finish):
            message = self._with_seconds(message)
        event: Event
        try:
            path = LEARNER_ROUTES[command.phase]
            view = await self._client.post(self._learner, path, message, SyncView, self._limits.learner)
            self._silences = 0
            event = LearnerAnswered(command.phase, command.epoch, view)
        except RefusedError as refused:
            log.info("epoch %d, %s: the learner refuses: %s", command.epoch, command.phase, refused)
            if refused.reason == Reason.NOT_READY or refused.status >= 500:
                await asyncio.sleep(RETRY_SECONDS)
            event = LearnerRefused(command.phase, command.epoch, refused.reason, refused.message)
        except UnreachableError as error:
            await self._after_silence(error)
            event = LearnerSilent(command.phase, command.epoch)
        self._events.put_nowait(event)

    async def _after_silence(self, error: Exception) -> None:
        if self._silences == 0:
            log.warning("the learner does not answer: %s", error)
        await asyncio.sleep(min(LONGEST_BACKOFF, RETRY_SECONDS * 2**self._silences))
        self._silences = min(self._silences + 1, 10)

    def _with_seconds(self, message: Finish) -> Finish:
        seconds = dict(self._seconds)
        if self._paused_at is not None:
            seconds["stall"] = time.monotonic() - self._paused_at
        return msgspec.structs.replace(message, seconds=seconds)

    # --- members ----------------------------------------------------------------------------------------------------------
    async def _to_member(self, command: ToMember) -> None:
        """Ask until there is an answer or the phase's deadline has passed: a member that restarts its server is not silent yet."""
        path, kind = MEMBER_ROUTES[command.phase]
        name, deadline = command.member.name, time.monotonic() + self._limits.member(command.phase)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                self._events.put_nowait(MemberSilent(command.phase, command.epoch, name))
                return
            try:
                answer = await self._client.post(command.member.url, path, command.message, kind, left)
            except RefusedError as refused:
                self._events.put_nowait(
                    MemberRefused(command.phase, command.epoch, name, refused.reason, refused.message)
                )
                return
            except UnreachableError:
                await asyncio.sleep(min(MEMBER_ATTEMPT_SECONDS, max(0.0, deadline - time.monotonic())))
            else:
                self._events.put_nowait(MemberAnswered(command.phase, command.epoch, name, answer))
                return

    async def _keep_paused(self) -> None:
        """Prolong the pauses of a sync that takes longer than their time to live."""
        while True:
            await asyncio.sleep(self._limits.pause_ttl / 4)
            await asyncio.gather(*(self._pause_again(command) for command in keep_paused(self.state)))

    async def _pause_again(self, command: ToMember) -> None:
        try:
            await self._client.post(
                command.member.url, routes.PAUSE, command.message, Paused, self._limits.pause_ttl / 4
            )
        except (RefusedError, UnreachableError) as error:
            # Not an answer of the phase: whether the member is still there is found out by the phase's own calls.
            log.debug("%s: its pause was not prolonged: %s", command.member.name, error)
