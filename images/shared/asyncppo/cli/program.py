"""`asyncppo COMMAND …`: the table of commands, and how errors become exit codes.

Owns the table and the translation. Does not own what a command does: each is a module of its own with

    def register(subparsers: Subparsers) -> None     adds its parser and calls `parser.set_defaults(run=run)`
    def run(arguments: argparse.Namespace) -> int    does it; returns an `ExitCode`

A command module is imported for every call of `asyncppo`: keep what is slow to import inside `run`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from asyncppo.cli.exit_codes import ExitCode
from asyncppo.errors import AsyncPPOError, UserError
from asyncppo.printable import printable, tolerate

COMMANDS: tuple[str, ...] = (
    "asyncppo.cli.validate",
    "asyncppo.cli.run",
    "asyncppo.cli.show",
    "asyncppo.cli.estimate",
    "asyncppo.cli.compare",
)
"""The modules of the commands, in the order of the help page: adding a command is one line here."""


def make_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="asyncppo",
        description="Asynchronous PPO for LLM agents, with old log-probabilities from the very weights that sampled.",
        epilog="Exit codes: " + ", ".join(f"{c.value} {c.name.lower().replace('_', ' ')}" for c in ExitCode) + ".",
    )
    parser.add_argument("--version", action="version", version=f"asyncppo {version('asyncppo')}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in commands:
        import_module(name).register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None, commands: Sequence[str] = COMMANDS) -> int:
    """Run one command line (default: the process's own) and return its exit code.

    argparse itself raises SystemExit(2) for a command line it does not understand and SystemExit(0) after --help.
    """
    tolerate(sys.stdout, sys.stderr)
    arguments = make_parser(commands).parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except UserError as error:
        return _say(error, ExitCode.BAD_INPUT)
    except AsyncPPOError as error:
        return _say(error, ExitCode.JOB_FAILED)
    except KeyboardInterrupt:
        print("asyncppo: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit: give it a place where that cannot fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OUTPUT_CLOSED
    return code


def _say(error: AsyncPPOError, code: ExitCode) -> ExitCode:
    sys.stdout.flush()
    print(printable(f"asyncppo: {error}"), file=sys.stderr)
    return code
