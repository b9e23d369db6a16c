"""The driver of version sync: carries out the machine's commands over HTTP and feeds it what comes of them.

Owns sockets, deadlines and phase seconds. Decides nothing: `machine.transition` does. Any number of coordinators may run for one
job; the learner's ledger lets one win each epoch.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.sync.columns import MEMBER_PHASES, Phase
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
from asyncppo.sync.reasons import BAD_WEIGHTS
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.experience import Manifest
from asyncppo.wire.syncing import Finish, Loaded, Paused, Resumed, SyncView
from asyncppo.wire.tokens import Role, token_of

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
LOOK_SECONDS = 1.0
LONGEST_BACKOFF = 5.0


class Coordinator:
    """Drives the syncs of one job until it is over.

    client: open, with the job's control token. name: distinct among coordinators that may live at the same time; one that is started again
    under its old name takes up its own open epoch at once, others only when that has stalled. on_phase: called with (state before,
    state after, seconds spent in the phase before) at each change of phase. token_of_member: what is shown to a rollout of this name,
    its own token; control's is never sent to a member, whose url is its own saying. `state` is always the newest.
    """

    def __init__(
        self,
        client: WireClient,
        learner_url: str,
        name: str,
        limits: SyncLimits,
        on_phase: Callable[[State, State, float], None] = lambda before, after, seconds: None,
        *,
        token_of_member: Callable[[str], str] | None = None,
    ) -> None:
        self._learner = learner_url
        self._limits = limits
        self._on_phase = on_phase
        self._token_of_member = token_of_member or (lambda name: token_of(client.token, Role.ROLLOUT, name))
        self._client = client
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._calls: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup
        self._round = 0
        self._seconds: dict[str, float] = {}
        self._entered = time.monotonic()
        self._paused_at: float | None = None
        self._seen: tuple[SyncView, float] | None = None
        self._silences = 0
        self.state = State(coordinator=name, min_ready=limits.min_ready, pause_seconds=limits.pause_ttl)

    async def run(self) -> None:
        """Until the learner says the job is over. Cancelling it in mid-sync leaves an epoch that any coordinator can take over."""
        async with asyncio.TaskGroup() as self._group:
            keeping = [self._group.create_task(self._keep_paused()), self._group.create_task(self._look_meanwhile())]
            _, commands = start(self.state)
            self._carry_out(commands)
            while self.state.phase is not Phase.OVER:
                number, event = await self._events.get()
                if number == self._round:
                    self._take(event)
            for task in (*keeping, *self._calls):
                task.cancel()

    def _take(self, event: Event) -> None:
        before = self.state
        self.state, commands = transition(before, event)
        moved = (self.state.phase, self.state.epoch) != (before.phase, before.epoch)
        if moved or any(isinstance(command, ToLearner) for command in commands):
            self._forget_calls()
        if moved:
            self._clock(before)
        if self.state.note != before.note and self.state.note:
            log.info("%s: %s", self.state.coordinator, self.state.note)
        for name in self.state.fenced:
            if name not in before.fenced:
                log.warning("epoch %d, %s: %s is fenced, after %s", self.state.epoch, before.phase, name, _words(event))
        self._carry_out(commands)

    def _forget_calls(self) -> None:
        """A new phase: what is still under way for the last one, and what has come of it since, is of no interest any more."""
        self._round += 1
        for task in self._calls:
            task.cancel()

    def _clock(self, before: State) -> None:
        """Phase seconds of the epoch: each phase by its name, `stall` from the first Pause to now."""
        now = time.monotonic()
        spent = now - self._entered
        if before.phase in (Phase.IDLE, Phase.BEGIN):
            self._seconds, self._paused_at = {}, None
        else:
            name = before.phase.value.lower()
            self._seconds[name] = self._seconds.get(name, 0.0) + spent
        if self.state.phase is Phase.PAUSE and self._paused_at is None:
            self._paused_at = now
        if before.phase is Phase.RESUME:
            log.info("epoch %d: %s", before.epoch, " ".join(f"{k} {v:.3f}s" for k, v in self._seconds.items()))
        self._entered = now
        self._on_phase(before, self.state, spent)

    def _carry_out(self, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case Watch():
                    self._call(self._watch(command.wait, self._round))
                case ToLearner():
                    self._call(self._to_learner(command, self._round))
                case ToMember():
                    self._call(self._to_member(command, self._round))

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        # In the group of `run`: an error that is this program's own, not a peer's, ends it rather than leave the machine waiting.
        task = self._group.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _tell(self, number: int, event: Event) -> None:
        self._events.put_nowait((number, event))

    # --- the learner ------------------------------------------------------------------------------------------------------
    async def _watch(self, wait: bool, number: int) -> None:
        """One look at the learner, however long it takes to get one."""
        seconds = self._limits.watch if wait else 0.0
        while True:
            asked = time.monotonic()
            try:
                path = f"{routes.SYNC}?wait={seconds}"
                view = await self._client.get(self._learner, path, SyncView, seconds + self._limits.learner)
                break
            except (RefusedError, UnreachableError) as error:
                await self._after_silence(error)
        self._silences = 0
        if wait and not view.finished:
            # An answer at once to a question that this coordinator leaves alone (too few members, another's epoch): ask less often.
            await asyncio.sleep(max(0.0, min(seconds, RETRY_SECONDS) - (time.monotonic() - asked)))
        self._tell(number, Viewed(view, stalled=self._stalled(view)))

    def _stalled(self, view: SyncView) -> bool:
        """Whether the open epoch has looked the same for longer than the patience."""
        now = time.monotonic()
        if self._seen is None or self._seen[0] != view:
            self._seen = (view, now)
        return view.open and now - self._seen[1] > self._limits.stall

    async def _to_learner(self, command: ToLearner, number: int) -> None:
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
            await asyncio.sleep(RETRY_SECONDS)
            event = LearnerRefused(command.phase, command.epoch, refused.reason, refused.message)
        except UnreachableError as error:
            await self._after_silence(error)
            event = LearnerSilent(command.phase, command.epoch)
        self._tell(number, event)

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
    async def _to_member(self, command: ToMember, number: int) -> None:
        """Ask until there is an answer or the phase's deadline has passed: a member that restarts its server is not silent yet."""
        path, kind = MEMBER_ROUTES[command.phase]
        name, deadline = command.member.name, time.monotonic() + self._limits.member(command.phase)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                self._tell(number, MemberSilent(command.phase, command.epoch, name))
                return
            try:
                token = self._token_of_member(name)
                answer = await self._client.post(command.member.url, path, command.message, kind, left, token=token)
            except RefusedError as refused:
                if refused.status >= 500 and refused.reason not in BAD_WEIGHTS:
                    await asyncio.sleep(min(RETRY_SECONDS, max(0.0, deadline - time.monotonic())))
                    continue
                reason, message = refused.reason, refused.message
                self._tell(number, MemberRefused(command.phase, command.epoch, name, reason, message))
                return
            except UnreachableError:
                await asyncio.sleep(min(RETRY_SECONDS, max(0.0, deadline - time.monotonic())))
            else:
                self._tell(number, MemberAnswered(command.phase, command.epoch, name, answer))
                return

    async def _look_meanwhile(self) -> None:
        """While members are waited for, look at the learner now and then: who has joined again meanwhile is no longer in the epoch,
        and need not be waited for until its deadline."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.state.phase in MEMBER_PHASES and time.monotonic() - self._entered >= LOOK_SECONDS:
                self._call(self._watch(False, self._round))

    async def _keep_paused(self) -> None:
        """Prolong the pauses of a sync that takes longer than their time to live."""
        while True:
            await asyncio.sleep(self._limits.pause_ttl / 4)
            await asyncio.gather(*(self._pause_again(command) for command in keep_paused(self.state)))

    async def _pause_again(self, command: ToMember) -> None:
        try:
            timeout = self._limits.pause_ttl / 4
            token = self._token_of_member(command.member.name)
            await self._client.post(command.member.url, routes.PAUSE, command.message, Paused, timeout, token=token)
        except (RefusedError, UnreachableError) as error:
            # Not an answer of the phase: whether the member is still there is found out by the phase's own calls.
            log.debug("%s: its pause was not prolonged: %s", command.member.name, error)


def _words(event: Event) -> str:
    if isinstance(event, MemberRefused):
        return f"it refused: {event.reason}, {event.message}"
    return "its deadline" if isinstance(event, MemberSilent) else "a look at the learner"
