"""One job under faults, from its start to its end, by the local runner: `python -m tests.faults.drive REQUEST_FILE`.

The programs are the real ones, started through the zygote. Beside them run two coordinators as programs of their own, as a cluster has
them: one that dies is started again, one that hangs is overtaken by the other and killed by a probe of its own. Owns that, the blows
that a plan leaves to others (`hold`), and the result. Does not own what must be true of it (`audit.py`).
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from asyncppo.api.job import AsyncPPOJob
from asyncppo.faults import FOLDER, VARIABLE, Kind, parse_plan
from asyncppo.local.folder import RunFolder
from asyncppo.local.outcome import Outcome
from asyncppo.local.prepare import Request, prepared
from asyncppo.local.process import RoleProgram
from asyncppo.local.roles import Programs
from asyncppo.local.runner import LocalRun, Patience
from asyncppo.local.snapshot import Snapshot
from asyncppo.local.supervisor import Backoff, Supervisor
from asyncppo.report.measures import OldLogits
from asyncppo.wire.client import WireClient
from asyncppo_runtime.ledger.reader import LedgerReader

COORDINATORS = ("coordinator-0", "coordinator-1")
NEVER = "learner:Begin:before:delay@999999"
STUB = Path(__file__).parent / "stub.py"
LOOK = 0.02
HANG_SECONDS = 4.0
START_SECONDS = 40.0
STALL_SECONDS = 2.0


class Drive(msgspec.Struct, frozen=True):
    """What to do. job: a manifest. plan: ASYNCPPO_FAULTS. victims: index of a `hold` → [role, crash or hang].

    blows: (seconds from the start, role, crash or hang), in order. seconds: stop cleanly then; 0: run to the end of the job.
    """

    output: str
    socket: str
    job: dict[str, object]
    plan: str = ""
    victims: dict[int, tuple[str, str]] = {}
    resume: bool = False
    blows: tuple[tuple[float, str, str], ...] = ()
    seconds: float = 0.0


class Met(msgspec.Struct, frozen=True):
    """A fault that happened. at: seconds from the start. recovery: from it to the end of the next sync; None when the job ended first."""

    fault: str
    at: float
    recovery: float | None


class Driven(msgspec.Struct, frozen=True):
    """How the run ended."""

    phase: str
    message: str
    seconds: float
    met: list[Met]
    missed: list[str]
    restarts: dict[str, int]
    old_logits: OldLogits
    discrepancy: float
    reward: float
    updates: int
    words: list[str]


class Silent:
    """The run's screen: nobody looks."""

    def update(self, snapshot: Snapshot) -> None:
        return

    def note(self, words: str) -> None:
        print(words, flush=True)


class Coordinators:
    """What a LocalRun takes for its coordinator."""

    def __init__(self, folder: RunFolder, marks: Path, socket: str, job: AsyncPPOJob) -> None:
        self._folder = folder
        self._marks = marks
        self._socket = socket
        self._limits = job.spec.weight_sync
        self.restarts: dict[str, int] = {}

    async def __call__(self, client: WireClient, learner: str, job: AsyncPPOJob) -> None:
        supervisor = Supervisor(1_000_000, Backoff(0.1), lambda words: None)
        await supervisor.open()
        try:
            for name in COORDINATORS:
                supervisor.start(RoleProgram(name, self._command(name, learner), self._folder.log_file(name), {}))
            while True:
                await asyncio.gather(*(self._probe(supervisor, name) for name in COORDINATORS))
        finally:
            self.restarts = supervisor.restarts_by_role
            await supervisor.close()

    def _command(self, name: str, learner: str) -> list[str]:
        return [
            *through_zygote(self._socket, "asyncppo.sync.__main__"),
            *("--learner", learner, "--token-file", str(self._folder.token_file), "--name", name),
            *("--pause-timeout", str(self._limits.pause_timeout_seconds)),
            *("--load-timeout", str(self._limits.load_timeout_seconds)),
            *("--stall", str(STALL_SECONDS)),
        ]

    async def _probe(self, supervisor: Supervisor, name: str) -> None:
        """A coordinator has no port; that it is stopped is seen from outside."""
        await asyncio.sleep(HANG_SECONDS / 2)
        if stopped(self._marks, name):
            await asyncio.sleep(HANG_SECONDS)
            if stopped(self._marks, name):
                supervisor.kill(name, "hung")


def through_zygote(socket: str, module: str) -> tuple[str, ...]:
    """The argv prefix that runs `module`'s main as a program."""
    return (sys.executable, "-S", "-E", str(STUB), socket, module)


def pid_of(marks: Path, role: str) -> int | None:
    """The newest process of a role; None before its first."""
    try:
        return int((marks / f"{role}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def stopped(marks: Path, role: str) -> bool:
    """Whether the role's newest process is stopped by a signal."""
    pid = pid_of(marks, role)
    try:
        return pid is not None and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def strike(marks: Path, index: int, victim: str, kind: str) -> None:
    """Wait until somebody holds at entry `index`, hit the victim, let the holder go on."""
    while not (marks / f"{index}.fired").exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(LOOK)
    hit(marks, victim, kind)
    (marks / f"{index}.go").touch()


def hit(marks: Path, victim: str, kind: str) -> bool:
    """Kill or stop the role's newest process. False when there is none."""
    pid = pid_of(marks, victim)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL if kind == Kind.CRASH else signal.SIGSTOP)
    except ProcessLookupError:
        return False
    return True


async def rain(marks: Path, blows: tuple[tuple[float, str, str], ...], struck: list[tuple[str, float]]) -> None:
    """Hit one role after the other; what hit is added to `struck`, with its time."""
    started = time.monotonic()
    for at, victim, kind in blows:
        await asyncio.sleep(max(0.0, started + at - time.monotonic()))
        if hit(marks, victim, kind):
            struck.append((f"{victim}:{kind}", time.monotonic()))


async def stop_after(seconds: float) -> None:
    """As a person stops a run."""
    if seconds:
        await asyncio.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)


def drive(request: Drive) -> Driven:
    """Run the job to its end."""
    marks = Path(request.output).with_suffix(".marks")
    marks.mkdir(exist_ok=True)
    # Without a plan as well: the programs then write their process ids, by which they can be hit.
    os.environ[VARIABLE], os.environ[FOLDER] = request.plan or NEVER, str(marks)
    os.environ["OMP_NUM_THREADS"] = "1"
    job = AsyncPPOJob.model_validate(request.job)
    folder = RunFolder(Path(request.output))
    coordinators = Coordinators(folder, marks, request.socket, job)
    asked = Request(
        job=job,
        home=Path(request.output).parent,
        output=folder.root,
        resume=request.resume,
        programs=Programs(
            learner=through_zygote(request.socket, "asyncppo_runtime.learner.__main__"),
            rollout=through_zygote(request.socket, "asyncppo_runtime.rollout.__main__"),
            old_logit=through_zygote(request.socket, "asyncppo_runtime.old_logit.__main__"),
        ),
        patience=Patience(
            poll=0.1, pulse=0.5, drain=5.0, end=5.0, hang=HANG_SECONDS, start=START_SECONDS, backoff=Backoff(0.1)
        ),
    )
    started = time.monotonic()
    struck: list[tuple[str, float]] = []
    with prepared(asked, coordinators) as run:
        outcome = asyncio.run(_execute(run, request, marks, struck))
    status = outcome.status
    syncs = _syncs(folder.root / "ledger.db")
    met, missed = _met(request.plan, marks, started, syncs)
    met += [Met(fault, at - started, _recovery(at, syncs)) for fault, at in struck]
    return Driven(
        phase=outcome.phase,
        message=outcome.message,
        seconds=time.monotonic() - started,
        met=met,
        missed=missed,
        restarts={**outcome.restarts, **coordinators.restarts},
        old_logits=status.old_logits if status else OldLogits(strategy="", exact=False),
        discrepancy=status.discrepancy.max_abs if status else 0.0,
        reward=status.reward.last if status else 0.0,
        updates=status.update if status else 0,
        words=outcome.words,
    )


async def _execute(run: LocalRun, request: Drive, marks: Path, struck: list[tuple[str, float]]) -> Outcome:
    blows = [
        asyncio.create_task(strike(marks, index, victim, kind)) for index, (victim, kind) in request.victims.items()
    ]
    blows += [asyncio.create_task(rain(marks, request.blows, struck)), asyncio.create_task(stop_after(request.seconds))]
    try:
        return await run.execute(Silent())
    finally:
        for blow in blows:
            blow.cancel()


def _syncs(ledger: Path) -> list[float]:
    """When syncs were finished, by the machine's clock, which is one for all its processes."""
    if not ledger.exists():
        return []
    with LedgerReader.open_read_only(ledger) as reader:
        return [event.at for event in reader.events(limit=1_000_000) if event.kind == "epoch_finished"]


def _met(plan: str, marks: Path, started: float, syncs: list[float]) -> tuple[list[Met], list[str]]:
    met, missed = [], []
    entries = [entry.strip() for entry in plan.split(",") if entry.strip()]
    for fault in parse_plan(plan):
        mark = marks / f"{fault.index}.fired"
        if not mark.exists():
            missed.append(entries[fault.index])
            continue
        at = float(mark.read_text().split()[1])
        met.append(Met(entries[fault.index], at - started, _recovery(at, syncs)))
    return met, missed


def _recovery(at: float, syncs: list[float]) -> float | None:
    after = [moment for moment in syncs if moment > at]
    return after[0] - at if after else None


def main(arguments: list[str]) -> int:
    """Read the request, drive, write RESULT beside it."""
    path = Path(arguments[0])
    driven = drive(msgspec.json.decode(path.read_bytes(), type=Drive))
    path.with_suffix(".result.json").write_bytes(msgspec.json.encode(driven))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
