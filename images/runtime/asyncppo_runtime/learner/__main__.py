"""`python -m asyncppo_runtime.learner`: arguments, logging, signals, exit codes. Owns nothing else.

Exit codes: 0 stopped in good order, 2 bad input (manifest, port, folder, checkpoint), 3 the job failed.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from asyncppo import faults
from asyncppo.api.manifest import load_manifest
from asyncppo.errors import UserError
from asyncppo.estimate.choice import settled
from asyncppo.wire.arguments import METRICS_HELP, parse_address, parse_metrics, read_token
from asyncppo_runtime.learner.errors import CheckpointError
from asyncppo_runtime.learner.program import Arguments, LearnerProgram
from asyncppo_runtime.ledger.errors import LedgerError, LedgerUnusableError
from asyncppo_runtime.weights.errors import WeightsError

DONE, BAD_INPUT, JOB_FAILED = 0, 2, 3


def main(argv: list[str] | None = None) -> int:
    """Run the learner; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m asyncppo_runtime.learner", description="The learner of an AsyncPPOJob."
    )
    parser.add_argument("--job", type=Path, required=True, help="the manifest")
    parser.add_argument("--directory", type=Path, required=True, help="ledger, weights and checkpoints; a local volume")
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--metrics-listen", default="", metavar="HOST:PORT", help=METRICS_HELP)
    parser.add_argument("--token-file", type=Path, required=True, help="holds the job's control token")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        faults.activate("learner")
        host, port = parse_address(options.listen)
        arguments = Arguments(
            job=settled(load_manifest(options.job)),
            directory=options.directory,
            host=host,
            port=port,
            token=read_token(options.token_file),
            metrics=parse_metrics(options.metrics_listen),
        )
    except (UserError, OSError, ValueError) as error:
        print(f"learner: {error}", file=sys.stderr)
        return BAD_INPUT
    try:
        return DONE if asyncio.run(_run(arguments)) else JOB_FAILED
    except (UserError, CheckpointError, LedgerUnusableError) as error:
        print(f"learner: {error}", file=sys.stderr)
        return BAD_INPUT
    except (WeightsError, LedgerError, OSError) as error:
        print(f"learner: {error}", file=sys.stderr)
        return JOB_FAILED


async def _run(arguments: Arguments) -> bool:
    program = LearnerProgram(arguments)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, program.stop)
    return await program.run()


if __name__ == "__main__":
    sys.exit(main())
