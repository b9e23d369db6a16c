"""Runs a study's cells: those whose results lie in the folder are kept, the rest are trained, in either mode.

Owns the folder, what may be resumed, and the processes. Does not own the training itself: `python -m asyncppo_runtime.study` (virtual) and
`asyncppo run` (wall clock) do that.

Folder: jobs/CELL.json (the cell's manifest), cells/CELL.json (its result), runs/CELL (wall clock: the run's own folder).
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from asyncppo.api.manifest import dump_manifest
from asyncppo.errors import AsyncPPOError, UserError
from asyncppo.local.folder import write_atomically
from asyncppo.programs import MODULE
from asyncppo.report.history import read_history
from asyncppo.report.summary import read_summary
from asyncppo.study.cells import Cell
from asyncppo.study.results import CellResult, Cost, Errors, encode_result, late_reward, read_result
from asyncppo.study.work import CellDone, CellWork, Pace, Said, StudyWork

TRAINER = (*MODULE, "asyncppo_runtime.study")
RUN = (sys.executable, "-P", "-c", "import sys; from asyncppo.cli import main; sys.exit(main())", "run")
START_SECONDS = 15.0  # what the roles of a wall-clock run take to start, roughly; part of the time budget only
LEARNING = ("Training", "Scoring", "Sync")
BAD_INPUT, INTERRUPTED = 2, 130

Tell = Callable[[str], None]


class Mode(StrEnum):
    """How cells are trained."""

    VIRTUAL = "virtual"
    WALL = "wall"


class CellFailedError(AsyncPPOError):
    """A cell's training failed; the message has its last words."""


@dataclass(frozen=True)
class Study:
    """cells in the order they are trained."""

    folder: Path
    cells: Sequence[Cell]
    mode: Mode

    def result_file(self, cell: Cell) -> Path:
        """Where the cell's result is or will be."""
        return self.folder / "cells" / f"{cell.name}.json"

    def job_file(self, cell: Cell) -> Path:
        """Where the cell's manifest is."""
        return self.folder / "jobs" / f"{cell.name}.json"

    def finished(self, cell: Cell) -> CellResult | None:
        """The cell's result, None while there is none. Raises UserError for one of another job or mode."""
        path = self.result_file(cell)
        if not path.exists():
            return None
        result = read_result(path)
        if result.fingerprint != cell.fingerprint or result.mode != self.mode:
            raise UserError(
                f"{path}: was made by another manifest, or in another mode; choose another --output, or put the manifest back"
            )
        return result

    def results(self) -> list[CellResult]:
        """Of all finished cells."""
        return [result for cell in self.cells if (result := self.finished(cell)) is not None]

    def missing(self) -> list[Cell]:
        """Cells without a result."""
        return [cell for cell in self.cells if self.finished(cell) is None]


def prepare(study: Study) -> None:
    """Make the folder and write every cell's manifest. Raises UserError."""
    try:
        for part in ("jobs", "cells", "runs"):
            (study.folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{study.folder}: cannot be made ({error.strerror}); choose another --output") from error
    for cell in study.cells:
        write_atomically(study.job_file(cell), dump_manifest(cell.job).encode())


def complete(study: Study, budget: Callable[[float], None], tell: Tell) -> None:
    """Train what is missing. budget: told the expected seconds for all of it, before anything is kept.

    Raises UserError (a job that cannot be trained), CellFailedError, KeyboardInterrupt (finished cells stay).
    """
    missing = study.missing()
    if not missing:
        return
    virtual = study.mode is Mode.VIRTUAL
    updates = sum(cell.job.spec.algorithm.updates for cell in missing)

    def pace(seconds: float) -> None:
        budget(updates * seconds + (0.0 if virtual else START_SECONDS * len(missing)))

    _train_virtually(study, missing, pace, tell, probe_only=not virtual)
    if not virtual:
        for cell in missing:
            _run(study, cell)
            tell(cell.name)


def _train_virtually(
    study: Study, cells: Sequence[Cell], pace: Callable[[float], None], tell: Tell, probe_only: bool
) -> None:
    work = StudyWork([_work(study, cell) for cell in cells], probe_only)
    path = study.folder / "work.json"
    write_atomically(path, msgspec.json.encode(work))
    process = subprocess.Popen([*TRAINER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            for line in process.stdout:
                said: Said = msgspec.json.decode(line, type=Said)
                if isinstance(said, Pace):
                    pace(said.seconds)
                elif isinstance(said, CellDone):
                    tell(said.name)
            words = process.stderr.read().decode(errors="replace").strip()
        except BaseException:
            process.kill()
            raise
    path.unlink(missing_ok=True)
    if process.returncode == BAD_INPUT:
        raise UserError(words)
    if process.returncode:
        raise CellFailedError(f"the study's trainer ended with {process.returncode}:\n{_last(words)}")


def _run(study: Study, cell: Cell) -> None:
    """One wall-clock run; an unfinished one is resumed."""
    folder = study.folder / "runs" / cell.name
    command = [*RUN, str(study.job_file(cell)), "--output", str(folder)]
    if (folder / "job.json").exists():
        command.append("--resume")
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    if ended.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if ended.returncode == BAD_INPUT:
        raise UserError(_last(ended.stderr))
    if ended.returncode:
        raise CellFailedError(
            f"{cell.name}: the run ended with {ended.returncode}:\n{_last(ended.stdout + ended.stderr)}"
        )
    write_atomically(study.result_file(cell), encode_result(_measured(cell, folder)))


def _measured(cell: Cell, folder: Path) -> CellResult:
    """A run's figures. stall: median of a sync, times their number. errors: of the tokens that the job audits
    (oldLogits.auditFraction)."""
    summary, history = read_summary(folder / "summary.json"), read_history(folder / "metrics.jsonl")
    rewards = [update.reward for update in history]
    count = max(1, len(history))
    learner = summary.time.get("learner", {})
    audited = summary.old_logits.audit
    return CellResult(
        strategy=cell.contender.label,
        exact=summary.exact,
        seed=cell.seed,
        value=cell.value,
        mode=Mode.WALL,
        fingerprint=cell.fingerprint,
        updates=summary.updates,
        rewards=rewards,
        reward=late_reward(rewards),
        tokens=sum(update.tokens for update in history),
        staleness=summary.staleness.mean,
        coverage=summary.old_logits.exact_coverage,
        k3=summary.discrepancy.k3,
        slope=summary.discrepancy.slope,
        mask_fraction=sum(update.mask_fraction for update in history) / count,
        clip_fraction=sum(update.clip_fraction for update in history) / count,
        errors=None
        if not audited.tokens
        else Errors(
            false_mask=audited.false_masks / audited.tokens,
            missed_mask=audited.missed_masks / audited.tokens,
            false_clip=audited.false_clips / audited.tokens,
            missed_clip=audited.missed_clips / audited.tokens,
            anchor=audited.mean_error,
        ),
        cost=Cost(
            wall=summary.wall_seconds,
            learner=sum(learner.get(activity, 0.0) for activity in LEARNING),
            stall=summary.syncs.stall_seconds.p50 * summary.syncs.count,
        ),
    )


def _work(study: Study, cell: Cell) -> CellWork:
    return CellWork(
        name=cell.name,
        label=cell.contender.label,
        value=cell.value,
        fingerprint=cell.fingerprint,
        job=str(study.job_file(cell)),
        result=str(study.result_file(cell)),
    )


def _last(words: str, lines: int = 12) -> str:
    return "\n".join(words.strip().splitlines()[-lines:])
