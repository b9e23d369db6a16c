"""One job on one machine, from the first process to the last: starts the roles, drives the coordinator, ends in good order.

Owns the order of things: start → run → (complete | failed | stopped) → everything gone. Does not own restarts (`supervisor.py`), the
sync protocol (`asyncppo.sync`), what the learner knows (`feed.py`), nor what is drawn (`view.py`, `plain.py`).
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UnreachableError
from asyncppo.local.coordination import COORDINATOR, logged
from asyncppo.local.feed import Feed, request_stop
from asyncppo.local.folder import RunFolder
from asyncppo.local.outcome import Outcome
from asyncppo.local.process import exit_in_words, last_words
from asyncppo.local.roles import (
    LEARNER,
    Addresses,
    Programs,
    learner_program,
    old_logit_names,
    old_logit_program,
    role_environment,
    rollout_names,
    rollout_program,
)
from asyncppo.local.signals import Stops
from asyncppo.local.snapshot import Snapshot
from asyncppo.local.supervisor import Backoff, RoleFailedError, Supervisor
from asyncppo.report.history import History
from asyncppo.wire.client import WireClient

Coordinate = Callable[[WireClient, str, AsyncPPOJob], Awaitable[None]]
"""Drives version syncs against the learner at this URL until the job is over."""

log = logging.getLogger(__name__)

OVER = frozenset({"Complete", "Failed"})


class Screen(Protocol):
    """Where the run shows itself."""

    def update(self, snapshot: Snapshot) -> None:
        """Show a moment."""

    def note(self, words: str) -> None:
        """Say something that stays."""


@dataclass(frozen=True)
class Patience:
    """Seconds. poll: between two looks at the learner. drain, save: for rollouts to drain, for the learner to save at a stop.

    end: for a role to go after SIGTERM. hang: without an answer on /healthz before a role is killed. start: for a
    process to give its first answer (it may have a large model to load), the same that the operator's pods get.
    """

    poll: float = 0.4
    pulse: float = 5.0
    drain: float = 30.0
    save: float = 120.0
    end: float = 20.0
    hang: float = 120.0
    start: float = 1800.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True)
class LocalRun:
    """A job that may start now: its folder is claimed and its ports are free."""

    job: AsyncPPOJob
    folder: RunFolder
    addresses: Addresses
    token: str
    imports: Path
    programs: Programs
    coordinate: Coordinate
    patience: Patience = field(default_factory=Patience)

    async def execute(self, screen: Screen) -> Outcome:
        """Run to the end. No process of the run is alive when this returns or raises."""
        supervisor = Supervisor(self.job.spec.backoff_limit, self.patience.backoff, screen.note)
        stops = Stops()
        async with WireClient(self.token) as client:
            feed = Feed(client, self.addresses, History(self.folder.metrics_file))
            with logged(self.folder.log_file(COORDINATOR)), stops.caught():
                await supervisor.open()
                try:
                    return await _Course(self, supervisor, feed, client, screen, stops).follow()
                finally:
                    await supervisor.close()


class _Course:
    """The course of one run; lives as long as `LocalRun.execute`."""

    def __init__(
        self,
        run: LocalRun,
        supervisor: Supervisor,
        feed: Feed,
        client: WireClient,
        screen: Screen,
        stops: Stops,
    ) -> None:
        self._run = run
        self._supervisor = supervisor
        self._feed = feed
        self._client = client
        self._screen = screen
        self._stops = stops
        self._phase = "running"
        self._started = time.monotonic()
        self._over = asyncio.Event()
        self._noted: set[str] = set()
        self._stop_answered = False
        self._rollouts = rollout_names(run.job)
        self._old_logits = old_logit_names(run.job)

    async def follow(self) -> Outcome:
        pulses = [self._feel_pulse(role) for role in (LEARNER, *self._rollouts, *self._old_logits)]
        async with beside(self._watch(), self._read_clocks(), *pulses):
            self._start_roles()
            async with beside(self._coordinate()):
                outcome = await self._until_the_end()
                if outcome.phase == "Stopped":
                    outcome = await self._stop_cleanly(outcome)
                elif outcome.phase == "Failed":
                    await self._save_what_can_be(outcome)
            self._phase = "ending"
            await self._supervisor.stop([*self._rollouts, *self._old_logits], self._run.patience.end)
            await self._supervisor.stop([LEARNER], self._run.patience.end)
        return outcome

    def _start_roles(self) -> None:
        run = self._run
        environment = role_environment(run.job, run.imports)
        self._supervisor.start(learner_program(run.folder, run.addresses, run.programs, environment))
        for name in self._rollouts:
            self._supervisor.start(rollout_program(run.folder, run.addresses, run.programs, environment, name))
        for name in self._old_logits:
            self._supervisor.start(old_logit_program(run.folder, run.addresses, run.programs, environment, name))

    async def _until_the_end(self) -> Outcome:
        """Wait for whichever comes first: the job is over, a role failed for good, a signal, the job's deadline."""
        stopped = asyncio.create_task(self._stops.first.wait())
        over = asyncio.create_task(self._over.wait())
        waiting: set[asyncio.Future[Any]] = {stopped, over, self._supervisor.failed}
        try:
            done, _ = await asyncio.wait(
                waiting, timeout=self._run.job.spec.active_deadline_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopped.cancel()
            over.cancel()
        if over in done and self._feed.status is not None:
            status = self._feed.status
            words = last_words(self._run.folder.log_file(LEARNER)) if status.phase == "Failed" else []
            return self._outcome(status.phase, status.message, words, LEARNER if words else "")
        if self._supervisor.failed in done:
            error: RoleFailedError = self._supervisor.failed.result()
            return self._outcome("Failed", str(error), error.words, error.role, bad_input=error.bad_input)
        if stopped in done:
            return self._outcome("Stopped", "stopped")
        limit = self._run.job.spec.active_deadline_seconds
        return self._outcome("Failed", f"activeDeadlineSeconds ({limit}) is over; --resume with a longer one goes on")

    async def _stop_cleanly(self, outcome: Outcome) -> Outcome:
        """Rollouts drain, the learner saves; a second signal ends both at once."""
        self._screen.note(
            "Stopping: rollouts hand in what they have, the learner saves. Ctrl-C again kills everything."
        )
        if not await self._unless_killed(self._drain_and_save()):
            return self._outcome(
                outcome.phase, "killed in the middle of a stop; the ledger keeps what it had acknowledged"
            )
        status = self._supervisor.exit_status(LEARNER)
        if status == 0 and self._stop_answered:
            return self._outcome(outcome.phase, "stopped; a checkpoint is saved")
        if status is None or status <= 0:  # it had not begun to serve, or hung; there is nothing it could tell
            return self._outcome(
                outcome.phase, "stopped before the learner could save; the ledger keeps what it had acknowledged"
            )
        words = last_words(self._run.folder.log_file(LEARNER))
        return self._outcome("Failed", f"the learner could not save ({exit_in_words(status)})", words, LEARNER)

    async def _save_what_can_be(self, outcome: Outcome) -> None:
        """After a failure the learner saves too, so that the run can be resumed once the cause is removed."""
        learner_lives = self._supervisor.age(LEARNER) is not None
        if learner_lives and outcome.status is not None and outcome.status.phase not in OVER:
            await self._unless_killed(self._drain_and_save())

    async def _drain_and_save(self) -> None:
        patience = self._run.patience
        self._phase = "stopping: the rollouts drain"
        await self._supervisor.stop([*self._rollouts, *self._old_logits], patience.drain)
        self._phase = "stopping: the learner saves"
        await self._feed.poll()
        try:
            await request_stop(self._client, self._run.addresses.learner_url, timeout=10.0)
            self._stop_answered = True
        except UnreachableError as error:
            log.warning("the learner was asked to stop: %s", error)
            why = "does not answer" if self._feed.status is not None else "has not begun to serve"
            self._screen.note(f"The learner {why}; the ledger keeps what it has acknowledged.")
        await self._supervisor.stop([LEARNER], patience.save)
        self._feed.history.follow()

    async def _unless_killed(self, work: Awaitable[None]) -> bool:
        """Do `work`; False when a second signal cut it short (everything is killed then)."""
        task = asyncio.ensure_future(work)
        second = asyncio.create_task(self._stops.second.wait())
        try:
            await asyncio.wait({task, second}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            second.cancel()
        if task.done():
            await task
            return True
        self._supervisor.kill_all()
        task.cancel()
        await asyncio.wait({task})
        return False

    async def _coordinate(self) -> None:
        """Run the coordinator; one that raises is started again and counted like a role that crashed."""
        while True:
            try:
                await self._run.coordinate(self._client, self._run.addresses.learner_url, self._run.job)
                return
            except Exception as error:  # a coordinator in this process must not take the runner along
                log.exception("the coordinator failed")
                reason = f"{type(error).__name__}: {error}"
                words = last_words(self._run.folder.log_file(COORDINATOR))
                if not self._supervisor.count_failure(COORDINATOR, reason, words):
                    return
            await asyncio.sleep(self._run.patience.backoff.delay(1))

    async def _watch(self) -> None:
        """Look at the learner and show it, again and again."""
        while True:
            await self._feed.poll()
            status = self._feed.status
            if status is not None and status.phase in OVER and not self._over.is_set():
                await self._feed.read_clocks()
                self._over.set()
            for note in status.notes if status is not None else ():
                if note not in self._noted:
                    self._noted.add(note)
                    self._screen.note(f"Note: {note}")
            self._screen.update(self._snapshot())
            await asyncio.sleep(self._run.patience.poll)

    async def _read_clocks(self) -> None:
        """Read them often enough that a crash loses little of them."""
        while True:
            await asyncio.sleep(self._run.patience.pulse)
            await self._feed.read_clocks()

    async def _feel_pulse(self, role: str) -> None:
        """Kill a process that has been silent for too long: a hang is a crash that does not end by itself."""
        answered = -math.inf
        patience = self._run.patience
        while True:
            await asyncio.sleep(patience.pulse)
            if await self._feed.feel_pulse(role):
                answered = time.monotonic()
                continue
            age = self._supervisor.age(role)
            if age is None:
                continue
            silent = time.monotonic() - answered
            # Silent for longer than it is old: this process has not answered yet.
            if (silent > patience.hang) if silent < age else (age > patience.start):
                self._supervisor.kill(role, f"no answer on /healthz for {min(silent, age):.0f} s")

    def _snapshot(self) -> Snapshot:
        job = self._run.job
        return Snapshot(
            job=job.metadata.name,
            folder=str(self._run.folder.root),
            strategy=job.spec.old_logits.strategy,
            exact=job.spec.old_logits.strategy.exact,
            bound=job.spec.staleness.max_versions,
            updates=job.spec.algorithm.updates,
            phase=self._phase,
            elapsed=time.monotonic() - self._started,
            status=self._feed.status,
            silence=time.monotonic() - self._feed.heard,
            rewards=[update.reward for update in self._feed.history.updates],
            roles=self._supervisor.views(),
        )

    def _outcome(
        self,
        phase: str,
        message: str,
        words: list[str] | None = None,
        role: str = "",
        *,
        bad_input: bool = False,
    ) -> Outcome:
        return Outcome(
            phase=phase,
            message=message,
            status=self._feed.status,
            rollout_time=self._feed.rollout_time(
                {name: self._supervisor.alive(name) for name in self._rollouts}, self._run.job.spec.rollout.concurrency
            ),
            restarts=self._supervisor.restarts_by_role,
            words=words or [],
            log_file=self._run.folder.log_file(role) if role else None,
            bad_input=bad_input,
        )


@contextlib.asynccontextmanager
async def beside(*works: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Do `works` beside a block and end them with it; one that raises ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
