"""Faults on purpose: named points of the protocol at which a real program can be made to crash, hang, lose a call or fill its disk.

Inert unless ASYNCPPO_FAULTS asks for something: a point then costs one look at a variable. Owns the plan's grammar, what is due at
a point, and the deeds that are the process's own. Does not own which faults a test asks for, nor what must hold after them.

ASYNCPPO_FAULTS is a list, by commas, of `ROLE:POINT:MOMENT:KIND[=SECONDS]@COUNT`, e.g. `learner:Seal:after:crash@3`: the third time
that a process of the learner has sealed, it dies before it answers. Each entry happens once, also over restarts: what has happened is
marked in the folder ASYNCPPO_FAULTS_FOLDER, where every program also writes its process id.
"""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from errno import ENOSPC
from pathlib import Path

import msgspec

from asyncppo.errors import UserError
from asyncppo.wire import routes

VARIABLE = "ASYNCPPO_FAULTS"
FOLDER = "ASYNCPPO_FAULTS_FOLDER"
LONGEST_HOLD = 60.0
HOLD_LOOK = 0.01


class Kind(StrEnum):
    """crash: SIGKILL. hang: SIGSTOP, the process answers nothing any more. delay: SECONDS late. hold: until the file N.go is there.

    drop: a call is not sent (before), or its answer is lost (after). duplicate: it is sent again, SECONDS later. full: the volume is
    full for this file, for the ledger until the program ends. truncate: the file just written loses its second half.
    """

    CRASH = "crash"
    HANG = "hang"
    DELAY = "delay"
    HOLD = "hold"
    DROP = "drop"
    DUPLICATE = "duplicate"
    FULL = "full"
    TRUNCATE = "truncate"


class Moment(StrEnum):
    """On which side of its deed a point is. A served call: before it is handled, and after, when the answer is not sent yet."""

    BEFORE = "before"
    AFTER = "after"


CALLS: Mapping[str, str] = {
    routes.SYNC_BEGIN: "Begin",
    routes.PAUSE: "Pause",
    routes.FLUSH: "Flush",
    routes.SYNC_SCORE: "Score",
    routes.SYNC_SEAL: "Seal",
    routes.SYNC_STEP: "Step",
    routes.SYNC_PUBLISH: "Publish",
    routes.LOAD: "Load",
    routes.SYNC_FINISH: "Finish",
    routes.RESUME: "Resume",
    routes.LEASES: "Lease",
    routes.GIVE_BACK: "GiveBack",
    routes.TRAJECTORIES: "Upload",
    routes.SEGMENTS: "Segments",
    routes.JOIN: "Join",
    routes.READY: "Ready",
    routes.HEARTBEAT: "Heartbeat",
    routes.LEAVE: "Leave",
    routes.WORKER_JOIN: "WorkerJoin",
    routes.WORKER_TAKE: "WorkerTake",
    routes.WORKER_SCORES: "WorkerScores",
    routes.WORKER_GIVE_BACK: "WorkerGiveBack",
}
"""Points at calls, by path: in the program that makes the call and in the one that serves it."""
WEIGHTS, CHECKPOINT, COMMIT, SCORING, PULLED = "Weights", "Checkpoint", "Commit", "Scoring", "Pulled"
INSIDE: Mapping[str, frozenset[Kind]] = {
    WEIGHTS: frozenset({Kind.FULL, Kind.TRUNCATE}),
    CHECKPOINT: frozenset({Kind.FULL}),
    COMMIT: frozenset({Kind.FULL}),
    SCORING: frozenset(),
    PULLED: frozenset({Kind.TRUNCATE}),
}
"""Points inside a deed and what can happen there beside crash, hang and delay. Weights, Checkpoint: before and after the rename of the
learner's file. Commit: of a ledger transaction. Scoring: one pass of the scorer. Pulled: a rollout has a file and loads it."""
ALWAYS = frozenset({Kind.CRASH, Kind.HANG, Kind.DELAY})
AT_CALLS = ALWAYS | {Kind.HOLD, Kind.DROP, Kind.DUPLICATE}
ENTRY = re.compile(r"([a-z-]+(?:-\d+)?):([A-Za-z]+):(before|after):([a-z]+)(?:=(\d+(?:\.\d+)?))?@([1-9]\d{0,5})")


class Fault(msgspec.Struct, frozen=True):
    """One entry. index: its place in the plan. role: a program's name, or without its number any of them. count: from 1."""

    index: int
    role: str
    point: str
    moment: Moment
    kind: Kind
    seconds: float
    count: int

    def concerns(self, role: str) -> bool:
        """Whether a program of this name can meet it."""
        return self.role in (role, re.sub(r"-\d+$", "", role))


def parse_plan(text: str) -> tuple[Fault, ...]:
    """Read a plan; UserError names the entry that is wrong and what is allowed."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    return tuple(_parse(index, entry) for index, entry in enumerate(entries))


def _parse(index: int, entry: str) -> Fault:
    match = ENTRY.fullmatch(entry)
    if match is None:
        raise UserError(
            f"{VARIABLE}: {entry!r} is not ROLE:POINT:MOMENT:KIND[=SECONDS]@COUNT, e.g. learner:Seal:after:crash@3 "
            "(MOMENT is before or after, COUNT from 1)"
        )
    role, point, moment, kind, seconds, count = match.groups()
    if point not in INSIDE and point not in CALLS.values():
        raise UserError(f"{VARIABLE}: {entry!r}: no point {point}; there are {', '.join([*CALLS.values(), *INSIDE])}")
    allowed = ALWAYS | INSIDE[point] if point in INSIDE else AT_CALLS
    if kind not in allowed:
        raise UserError(f"{VARIABLE}: {entry!r}: {kind} cannot happen at {point}; {', '.join(sorted(allowed))} can")
    if seconds is not None and kind not in (Kind.DELAY, Kind.DUPLICATE):
        raise UserError(f"{VARIABLE}: {entry!r}: {kind} takes no seconds; delay and duplicate do")
    if kind in (Kind.DROP, Kind.DUPLICATE) and role == "learner":
        raise UserError(f"{VARIABLE}: {entry!r}: the learner makes no calls; let a rollout or coordinator lose it")
    if kind == Kind.DUPLICATE and moment == Moment.AFTER:
        raise UserError(f"{VARIABLE}: {entry!r}: a call is duplicated before, when it is sent")
    return Fault(index, role, point, Moment(moment), Kind(kind), float(seconds or 0.0), int(count))


class Faults:
    """The faults of one process. Any thread may ask."""

    def __init__(self, role: str, plan: tuple[Fault, ...], folder: Path) -> None:
        self._plan = tuple(fault for fault in plan if fault.concerns(role))
        self._folder = folder
        self._counts: dict[tuple[str, Moment], int] = {}
        self._lock = threading.Lock()

    def due(self, point: str, moment: Moment) -> Fault | None:
        """Count this time; the fault that happens now, if any, and it is marked as having happened."""
        with self._lock:
            count = self._counts[point, moment] = self._counts.get((point, moment), 0) + 1
        for fault in self._plan:
            if (fault.point, fault.moment, fault.count) == (point, moment, count) and self._mark(fault):
                return fault
        return None

    def _mark(self, fault: Fault) -> bool:
        """Whether this process is the first that has come to it."""
        try:
            descriptor = os.open(self._folder / f"{fault.index}.fired", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        os.write(descriptor, f"{os.getpid()} {time.monotonic()}\n".encode())
        os.close(descriptor)
        return True

    async def until_released(self, fault: Fault) -> None:
        """Wait for the file that lets a held process go on."""
        deadline = time.monotonic() + LONGEST_HOLD
        while not (self._folder / f"{fault.index}.go").exists() and time.monotonic() < deadline:  # noqa: ASYNC110 (another process makes it)
            await asyncio.sleep(HOLD_LOOK)


_active: Faults | None = None


def activate(role: str) -> None:
    """Once per program, under its member's name. UserError for a plan that cannot be read or lacks its folder."""
    global _active
    text = os.environ.get(VARIABLE, "")
    if not text:
        return
    plan, folder = parse_plan(text), Path(os.environ.get(FOLDER, ""))
    if not os.environ.get(FOLDER) or not folder.is_dir():
        raise UserError(f"{VARIABLE} is set, so {FOLDER} must name a folder for the marks of what has happened")
    (folder / f"{role}.pid").write_text(f"{os.getpid()}\n")
    _active = Faults(role, plan, folder)


async def at_call(path: str, moment: Moment) -> Fault | None:
    """A point at a call, made or served. Returns what only the transport can do: drop and duplicate."""
    if _active is None:
        return None
    fault = _active.due(CALLS.get(path, ""), moment)
    if fault is None:
        return None
    match fault.kind:
        case Kind.DELAY:
            await asyncio.sleep(fault.seconds)
        case Kind.HOLD:
            await _active.until_released(fault)
        case Kind.CRASH | Kind.HANG:
            _end(fault.kind)
    return fault


def inside(point: str, moment: Moment, file: Path | None = None) -> Kind | None:
    """A point inside a deed, on whatever thread does it. file: what can be truncated there. Returns FULL where the volume is to be
    full: how that shows is the caller's."""
    fault = _active.due(point, moment) if _active is not None else None
    if fault is None:
        return None
    match fault.kind:
        case Kind.DELAY:
            time.sleep(fault.seconds)
        case Kind.TRUNCATE if file is not None:
            os.truncate(file, file.stat().st_size // 2)
        case Kind.CRASH | Kind.HANG:
            _end(fault.kind)
    return fault.kind


def refuse_write(point: str, file: Path) -> None:
    """A point before the rename of a file. OSError ENOSPC when the volume is to be full."""
    if inside(point, Moment.BEFORE, file) is Kind.FULL:
        raise OSError(ENOSPC, os.strerror(ENOSPC), str(file))


def _end(kind: Kind) -> None:
    os.kill(os.getpid(), signal.SIGKILL if kind is Kind.CRASH else signal.SIGSTOP)
