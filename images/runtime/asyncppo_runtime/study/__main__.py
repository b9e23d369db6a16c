"""`python -m asyncppo_runtime.study WORK`: train cells one after another, for `asyncppo compare`. WORK: a StudyWork as JSON.

Owns the protocol (one JSON object per line on standard output: first the pace, then each cell as it is done) and the exit codes: 0
done, 2 a job that cannot be trained. A result's file appears whole or not at all, so a killed study goes on where it was.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from asyncppo.api.manifest import load_manifest
from asyncppo.errors import UserError
from asyncppo.local.folder import write_atomically
from asyncppo.study.results import encode_result
from asyncppo.study.work import CellDone, CellWork, Pace, StudyWork
from asyncppo_runtime.study.cell import CellRun

PROBE_UPDATES = 3


def main(argv: list[str] | None = None) -> int:
    """Train what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser("python -m asyncppo_runtime.study", description="Cells of a study.")
    parser.add_argument("work", type=Path, metavar="WORK", help="what to train, as `asyncppo compare` writes it")
    arguments = parser.parse_args(argv)
    try:
        work = msgspec.json.decode(arguments.work.read_bytes(), type=StudyWork)
        if work.cells:
            _say(_pace(work.cells[0]))
        for cell in work.cells if not work.probe_only else []:
            _say(_train(cell))
    except (UserError, OSError, msgspec.DecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _train(cell: CellWork) -> CellDone:
    job = load_manifest(cell.job)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="asyncppo-study-") as directory:
        made = asyncio.run(CellRun(job, Path(directory)).train(job.spec.algorithm.updates))
    result = msgspec.structs.replace(made, strategy=cell.label, value=cell.value, fingerprint=cell.fingerprint)
    write_atomically(Path(cell.result), encode_result(result))
    return CellDone(cell.name, time.perf_counter() - began)


def _pace(cell: CellWork) -> Pace:
    """Seconds of an update, from a cell that is begun and thrown away; the first update warms up and does not count."""
    job = load_manifest(cell.job)
    updates = min(1 + PROBE_UPDATES, job.spec.algorithm.updates)
    with tempfile.TemporaryDirectory(prefix="asyncppo-study-") as directory:
        run = CellRun(job, Path(directory))
        asyncio.run(run.train(updates))
        return Pace((run.ended[-1] - run.ended[0]) / max(1, updates - 1))


def _say(message: Pace | CellDone) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
