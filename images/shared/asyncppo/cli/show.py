"""`asyncppo show DIR [--trajectory ID]`: what the agent did, read from the run's ledger, also while the run goes on.

Owns the options and the words for what is not there. Does not own reading the ledger (the runtime's `inspect` program does, in a
process of its own: this package never imports the runtime) nor the layout (`asyncppo.report.trajectory_words`).
"""

import argparse
import subprocess
import sys
from pathlib import Path

import msgspec

from asyncppo.cli.command import Subparsers
from asyncppo.cli.exit_codes import ExitCode
from asyncppo.errors import UserError
from asyncppo.local.folder import HOME_FILE
from asyncppo.printable import printable
from asyncppo.programs import MODULE
from asyncppo.report.trajectories import Listing, TrajectoryView

READER = (*MODULE, "asyncppo_runtime.inspect")


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "show",
        help="read the trajectories of a run",
        description="List a run's newest trajectories, or read one: text, and per token its version, log-probs and mask.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the folder of a run")
    parser.add_argument("--trajectory", metavar="ID", type=int, help="read this one, token by token")
    parser.add_argument("--limit", metavar="N", type=_positive, default=20, help="list so many (default: 20)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the listing or the trajectory. Raises UserError when there is nothing to read."""
    answer = read(arguments.directory, arguments.trajectory, arguments.limit)
    if arguments.json:
        sys.stdout.write(answer.decode())
        return ExitCode.DONE
    from rich.console import Console

    from asyncppo.report.trajectory_words import NARROWEST, render_listing, render_trajectory

    console = Console()
    console = Console(width=max(console.width, NARROWEST))
    if arguments.trajectory is None:
        listing = msgspec.json.decode(answer, type=Listing)
        console.print(render_listing(listing))
        if listing.trajectories:
            example = listing.trajectories[0].id
            console.print(f"\nTo read one: asyncppo show {arguments.directory} --trajectory {example}", soft_wrap=True)
    else:
        console.print(render_trajectory(msgspec.json.decode(answer, type=TrajectoryView)))
    return ExitCode.DONE


def read(directory: Path, trajectory: int | None, limit: int) -> bytes:
    """The reader program's JSON. Raises UserError with its words when it finds nothing to read."""
    for name in ("job.json", "ledger.db"):
        if not (directory / name).exists():
            raise UserError(f"{directory}: holds no run (no {name}); give the folder that `asyncppo run` wrote")
    command = [*READER, str(directory), "--limit", str(limit)]
    if trajectory is not None:
        command += ["--trajectory", str(trajectory)]
    for imports in (home(directory), Path.cwd()):
        command += ["--imports", str(imports)] if imports is not None else []
    ended = subprocess.run(command, capture_output=True, check=False)
    if ended.returncode != 0:
        words = ended.stderr.decode(errors="replace").strip()
        raise UserError(f"{directory}: {words or 'cannot be read'}")
    sys.stderr.write(printable(ended.stderr.decode(errors="replace")))
    return ended.stdout


def home(directory: Path) -> Path | None:
    """The folder of the manifest that the run was started with, from which a Custom environment is imported; None when nobody wrote it
    down."""
    try:
        return Path((directory / HOME_FILE).read_text().strip())
    except (OSError, UnicodeDecodeError):
        return None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
