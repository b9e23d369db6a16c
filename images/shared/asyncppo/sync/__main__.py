"""One job's coordinator as a program of its own: `python -m asyncppo.sync --learner URL --token-file F --name N`.

Owns its arguments and exit codes (0: the job is over; 2: bad arguments; 130: interrupted). Does not own the protocol.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

from asyncppo import faults
from asyncppo.errors import UserError
from asyncppo.sync.coordinator import Coordinator
from asyncppo.sync.limits import SyncLimits
from asyncppo.sync.machine import State
from asyncppo.wire.arguments import read_token
from asyncppo.wire.client import WireClient


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with 2 and a message when it is wrong."""
    defaults = SyncLimits()
    parser = argparse.ArgumentParser(prog="python -m asyncppo.sync", description=__doc__.splitlines()[0])
    parser.add_argument("--learner", required=True, metavar="URL", help="the learner, e.g. http://127.0.0.1:8700")
    parser.add_argument("--token-file", required=True, type=Path, metavar="FILE", help="holds the job's control token")
    parser.add_argument(
        "--name",
        required=True,
        help="of this coordinator; the same after a restart, so that it takes up its own open epoch at once",
    )
    parser.add_argument("--pause-timeout", type=float, default=defaults.pause, metavar="SECONDS")
    parser.add_argument("--load-timeout", type=float, default=defaults.load, metavar="SECONDS")
    parser.add_argument("--pause-ttl", type=float, default=defaults.pause_ttl, metavar="SECONDS")
    parser.add_argument("--stall", type=float, default=defaults.stall, metavar="SECONDS")
    parser.add_argument("--min-ready", type=int, default=defaults.min_ready, metavar="N")
    return parser.parse_args(argv)


async def coordinate(options: argparse.Namespace, token: str) -> int:
    """Run until the job is over (0) or a signal comes (130)."""
    limits = SyncLimits(
        pause=options.pause_timeout,
        load=options.load_timeout,
        pause_ttl=options.pause_ttl,
        stall=options.stall,
        min_ready=options.min_ready,
    )

    def tell(before: State, after: State, seconds: float) -> None:
        logging.debug("%s %.4fs, then %s", before.phase, seconds, after.phase)

    async with WireClient(token) as client:
        running = asyncio.create_task(
            Coordinator(client, options.learner.rstrip("/"), options.name, limits, tell).run()
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running
            return 0
    return 130


def main(argv: list[str] | None = None) -> int:
    """The program."""
    options = arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        faults.activate(options.name)
        token = read_token(options.token_file)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return asyncio.run(coordinate(options, token))


if __name__ == "__main__":
    sys.exit(main())
