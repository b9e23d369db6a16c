"""Keeps the roles running: restarts what crashes, with backoff, until the job's limit; stops them in good order.

Owns restarts and their count. Does not own what the roles are (`roles.py`) nor why a run ends (`runner.py`).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from asyncppo.errors import AsyncPPOError
from asyncppo.local.process import RoleProcess, RoleProgram, Warden, exit_in_words, last_words

BAD_INPUT = 2
LONGEST_DELAY = 30.0

log = logging.getLogger(__name__)


class RoleFailedError(AsyncPPOError):
    """A role failed for good.

    role, status: who and its exit status (negative: a signal). bad_input: the role refused what it was given; no restart would
    help. words: the end of its log.
    """

    def __init__(self, role: str, status: int, reason: str, words: list[str]) -> None:
        super().__init__(reason)
        self.role = role
        self.status = status
        self.bad_input = status == BAD_INPUT
        self.words = words


@dataclass(frozen=True)
class Backoff:
    """Seconds before restart n of a role: `first` doubled each time, at most LONGEST_DELAY."""

    first: float = 1.0

    def delay(self, restart: int) -> float:
        """Delay before the `restart`-th restart, counted from 1."""
        return min(LONGEST_DELAY, self.first * 2.0 ** min(restart - 1, 16))


@dataclass(frozen=True)
class RoleView:
    """A role as the live view shows it. state: starting, running, restarting, stopping, stopped."""

    name: str
    state: str
    restarts: int = 0
    note: str = ""


@dataclass
class _Kept:
    program: RoleProgram
    state: str = "starting"
    note: str = ""
    stopping: bool = False
    lived: float = 0.0
    status: int | None = None
    process: RoleProcess | None = None
    task: asyncio.Task[None] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Starts roles and keeps them. `failed` completes with the RoleFailedError that ends the job."""

    def __init__(
        self, backoff_limit: int, backoff: Backoff | None = None, tell: Callable[[str], None] = log.warning
    ) -> None:
        self._limit = backoff_limit
        self._backoff = backoff or Backoff()
        self._tell = tell
        self._restarts: dict[str, int] = {}
        self._warden = Warden()
        self._roles: dict[str, _Kept] = {}
        self.failed: asyncio.Future[RoleFailedError] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Start the warden; before any role."""
        await self._warden.start()

    def start(self, program: RoleProgram) -> None:
        """Start a role and keep it running."""
        kept = _Kept(program)
        self._roles[program.name] = kept
        kept.task = asyncio.create_task(self._keep(kept), name=program.name)
        kept.task.add_done_callback(self._report_bug)

    def count_failure(self, role: str, reason: str, words: list[str], status: int = 1) -> bool:
        """Count one failure against the limit. True: start it again; False: `failed` tells why the job is over."""
        if status != BAD_INPUT and sum(self._restarts.values()) < self._limit:
            self._restarts[role] = self._restarts.get(role, 0) + 1
            self._tell(f"{role}: {reason}; starting it again")
            return True
        if status == BAD_INPUT:
            text = f"{role} refused what it was given ({reason})"
        else:
            text = f"{role} failed ({reason}) and backoffLimit ({self._limit}) is used up"
        if not self.failed.done():
            self.failed.set_result(RoleFailedError(role, status, text, words))
        return False

    @property
    def restarts_by_role(self) -> dict[str, int]:
        """Restarts of each role that had any."""
        return dict(self._restarts)

    def views(self) -> list[RoleView]:
        """Every role, in the order they were started."""
        return [
            RoleView(name, kept.state, self._restarts.get(name, 0), kept.note) for name, kept in self._roles.items()
        ]

    def age(self, role: str) -> float | None:
        """Seconds that the role's present process has been running; None when it has none."""
        process = self._roles[role].process
        return None if process is None else time.monotonic() - process.started

    def exit_status(self, role: str) -> int | None:
        """How the role's last process ended (negative: a signal); None while none has."""
        return self._roles[role].status

    def alive(self, role: str) -> float:
        """Seconds that the role's processes have run in all."""
        return self._roles[role].lived + (self.age(role) or 0.0)

    def kill(self, role: str, note: str) -> None:
        """SIGKILL a role's group; it is restarted like after a crash."""
        kept = self._roles[role]
        if kept.process is not None:
            kept.note = note
            kept.process.kill()

    async def stop(self, roles: list[str], grace: float) -> None:
        """SIGTERM the roles, wait `grace` seconds, SIGKILL what is left."""
        chosen = [self._roles[name] for name in roles if name in self._roles]
        for kept in chosen:
            kept.stopping = True
            kept.wake.set()
            if kept.process is not None:
                kept.state = "stopping"
                kept.process.terminate()
        tasks = [kept.task for kept in chosen if kept.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        if late:
            for kept in chosen:
                if kept.process is not None:
                    kept.process.kill()
            await asyncio.wait(late)

    def kill_all(self) -> None:
        """SIGKILL every group, now, and restart nothing."""
        for kept in self._roles.values():
            kept.stopping = True
            kept.wake.set()
            if kept.process is not None:
                kept.process.kill()

    async def close(self) -> None:
        """Nothing is left running when this returns."""
        self.kill_all()
        tasks = [kept.task for kept in self._roles.values() if kept.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        await self._warden.stop()

    async def _keep(self, kept: _Kept) -> None:
        program = kept.program
        while not kept.stopping:
            try:
                kept.process = await RoleProcess.start(program, self._warden)
            except OSError as error:
                status, reason = 1, f"cannot be started: {error}"
            else:
                kept.state = "running"
                if kept.stopping:
                    kept.process.terminate()
                status = await kept.process.wait()
                reason = kept.note or exit_in_words(status)
            kept.status = status
            kept.lived += self.age(program.name) or 0.0
            kept.process = None
            kept.note = ""
            if kept.stopping:
                break
            words = last_words(program.log_file)
            if not self.count_failure(program.name, reason, words, status):
                kept.note = reason
                break
            kept.state, kept.note = "restarting", reason
            await self._pause(kept)
            kept.note = ""
        kept.state = "stopped"

    def _report_bug(self, task: asyncio.Task[None]) -> None:
        """A keeper that raised would leave its role unwatched: end the job instead."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            log.error("the supervisor of %s failed", task.get_name(), exc_info=error)
            self.failed.set_result(RoleFailedError(task.get_name(), 1, f"the supervisor failed: {error!r}", []))

    async def _pause(self, kept: _Kept) -> None:
        try:
            await asyncio.wait_for(kept.wake.wait(), self._backoff.delay(self._restarts[kept.program.name]))
        except TimeoutError:
            return
