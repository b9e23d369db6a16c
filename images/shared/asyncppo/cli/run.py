"""`asyncppo run MANIFEST`: train the job on this machine, with the same role programs and the same coordinator as on a cluster.

Owns the options and the exit code. Does not own the run (`asyncppo.local`).
"""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from asyncppo.api.manifest import load_manifest
from asyncppo.api.warnings import warnings
from asyncppo.cli.command import Subparsers
from asyncppo.cli.exit_codes import ExitCode
from asyncppo.errors import UserError

DESCRIPTION = """
Train the job on this machine: learner and rollouts are started as processes, and everything they make lies in one folder.
Ctrl-C stops cleanly (rollouts hand in, the learner saves); the same command with --resume goes on.
"""


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser("run", help="train a job on this machine", description=DESCRIPTION)
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="a YAML or JSON file")
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder of the run (default: runs/NAME)")
    parser.add_argument("--updates", metavar="N", type=int, help="instead of spec.algorithm.updates")
    parser.add_argument("--seed", metavar="N", type=int, help="instead of spec.seed")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--port", metavar="P", type=int, default=0, help="the learner's port (default: any free one)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the job to its end. Raises UserError when it cannot be started."""
    require_extras("run")
    from rich.console import Console

    from asyncppo.local.coordination import coordinate
    from asyncppo.local.ending import tell, write_results
    from asyncppo.local.plain import PlainView
    from asyncppo.local.prepare import Request, prepared, with_spec
    from asyncppo.local.view import LiveView

    job = load_manifest(arguments.manifest)
    changes: dict[str, object] = {}
    if arguments.updates is not None:
        changes["algorithm"] = {"updates": arguments.updates}
    if arguments.seed is not None:
        changes["seed"] = arguments.seed
    if changes:
        job = with_spec(job, changes, f"{arguments.manifest} with the options of the command line")
    request = Request(
        job=job,
        home=arguments.manifest.parent,
        output=arguments.output,
        resume=arguments.resume,
        port=arguments.port,
    )
    console = Console()
    with prepared(request, coordinate) as local:
        if local.folder.choice_file.exists():
            console.print(local.folder.choice_file.read_text().strip(), soft_wrap=True, markup=False, highlight=False)
        for warning in warnings(local.job.spec):
            console.print(f"warning: {warning}", soft_wrap=True, markup=False, highlight=False)
        with LiveView(console) if console.is_terminal else PlainView(sys.stdout) as screen:
            outcome = asyncio.run(local.execute(screen))
        summary = write_results(local.job, local.folder, outcome)
        tell(console, summary, local.folder, outcome, _again(arguments))
    if outcome.phase == "Complete":
        return ExitCode.DONE
    if outcome.phase == "Stopped":
        return ExitCode.INTERRUPTED
    return ExitCode.BAD_INPUT if outcome.bad_input else ExitCode.JOB_FAILED


def _again(arguments: argparse.Namespace) -> str:
    """The command that resumes this run."""
    words = ["asyncppo", "run", str(arguments.manifest)]
    for option in ("output", "updates", "seed"):
        value = getattr(arguments, option)
        if value is not None:
            words += [f"--{option}", str(value)]
    return shlex.join([*words, "--resume"])


def require_extras(command: str) -> None:
    """Training here needs more than the base package; say so before anything else. Raises UserError."""
    require(command, ("rich", "matplotlib", "torch", "transformers"), "runtime,local")


def require(command: str, modules: Sequence[str], extras: str) -> None:
    """Raises UserError when a module that `command` needs is not installed. extras: of this package, that bring them."""
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UserError(
            f"`asyncppo {command}` needs {', '.join(missing)}; install them with `pip install 'asyncppo[{extras}]'`"
        )
