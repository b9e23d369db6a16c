"""`python -m asyncppo_runtime.inspect DIR [--trajectory ID] [--limit N]`: JSON on standard output for `asyncppo show`.

Owns the arguments and the exit codes: 0 done, 2 nothing there to read. Does not own what is told (`listing.py`, `trajectory.py`).
"""

import argparse
import sys
from pathlib import Path

import msgspec

from asyncppo.api.manifest import load_manifest
from asyncppo.errors import UserError
from asyncppo.report.measures import Measure
from asyncppo_runtime.inspect.listing import newest, resident_before
from asyncppo_runtime.ledger.errors import LedgerUnusableError
from asyncppo_runtime.ledger.reader import LedgerReader

LARGEST_ID = (1 << 63) - 1


def main(argv: list[str] | None = None) -> int:
    """Tell what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser("python -m asyncppo_runtime.inspect", description="A run's trajectories, as JSON.")
    parser.add_argument("directory", type=Path, help="the learner's folder")
    parser.add_argument("--trajectory", type=int, metavar="ID", help="one trajectory, token by token")
    parser.add_argument("--limit", type=int, default=20, help="the newest so many trajectories")
    arguments = parser.parse_args(argv)
    try:
        answer = inspect(arguments.directory, arguments.trajectory, arguments.limit)
    except (UserError, LedgerUnusableError) as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    return 0


def inspect(directory: Path, trajectory: int | None, limit: int) -> Measure:
    """A Listing, or the TrajectoryView of one. Raises UserError, LedgerUnusableError."""
    job = load_manifest(directory / "job.json", lenient=True)
    with LedgerReader.open_read_only(directory / "ledger.db") as ledger:
        if trajectory is None:
            return newest(ledger, job.metadata.name, limit)
        stored = ledger.trajectory(trajectory) if 0 < trajectory <= LARGEST_ID else None
        if stored is None:
            leased = ledger.totals().leased
            raise UserError(f"there is no trajectory {trajectory} in this run; ids go from 1 to {leased}")
        # Only here: the tokenizer and the mask bring torch and transformers along.
        from asyncppo_runtime.inspect.trajectory import view_of
        from asyncppo_runtime.policy import build_tokenizer

        return view_of(stored, job.metadata.name, job.spec, build_tokenizer(job.spec), resident_before(ledger))


if __name__ == "__main__":
    sys.exit(main())
