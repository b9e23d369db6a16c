"""`python -m asyncppo_runtime.old_logit`: the command line of an old-logit worker, and what its exit status means.

0: told to stop, and stopped in good order. 1: failed (the last lines say why). 2: bad input. 3: the learner refuses this worker for
good (another job, a wrong token). Does not own what a worker does (`worker.py`).
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from asyncppo import faults
from asyncppo.api.manifest import load_manifest
from asyncppo.errors import RefusedError, UserError
from asyncppo.wire.arguments import METRICS_HELP, parse_address, parse_metrics, read_token
from asyncppo.wire.client import WireClient
from asyncppo.wire.server import serve
from asyncppo_runtime.old_logit.worker import Worker

BAD_INPUT, REFUSED = 2, 3

log = logging.getLogger("asyncppo.old_logit")


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; the exit status."""
    options = program_parser().parse_args(arguments)
    logging.basicConfig(
        level=options.log_level,
        format="%(asctime)s %(levelname)s old-logit: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    try:
        asyncio.run(_work(options))
    except UserError as error:
        return _told(BAD_INPUT, str(error))
    except RefusedError as error:
        return _told(REFUSED, f"the learner refuses this worker: {error}")
    return 0


async def _work(options: argparse.Namespace) -> None:
    faults.activate(options.name)
    job = load_manifest(options.job)
    token = read_token(options.token_file)
    host, port = parse_address(options.listen)
    metrics = parse_metrics(options.metrics_listen)
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--directory {options.directory}: cannot be made ({error.strerror}); choose another"
        ) from error
    async with WireClient(token) as client:
        worker = Worker(job, client, name=options.name, learner=options.learner, directory=options.directory)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        try:
            runner, port = await serve(worker.application(token), host, port, metrics)
        except OSError as error:
            raise UserError(f"--listen {options.listen}: {error.strerror or error}; choose a free address") from error
        log.info("%s of job %s listens on %s:%d", options.name, job.metadata.name, host, port)
        try:
            await worker.run(options.advertise or f"http://{host}:{port}")
        finally:
            await runner.cleanup()
    log.info("stopped")


def program_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m asyncppo_runtime.old_logit",
        description="An old-logit worker of an AsyncPPOJob (strategy Dedicated).",
    )
    parser.add_argument("--job", type=Path, required=True, metavar="FILE", help="the job's manifest")
    parser.add_argument("--learner", required=True, metavar="URL", help="base URL of the learner")
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="where probes and metrics are; port 0 takes a free one"
    )
    parser.add_argument("--advertise", default="", metavar="URL", help="this port as others see it (default: --listen)")
    parser.add_argument("--metrics-listen", default="", metavar="HOST:PORT", help=METRICS_HELP)
    parser.add_argument("--name", required=True, help="the worker's name, the same after a restart")
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="this worker's own token")
    parser.add_argument("--directory", type=Path, required=True, metavar="DIR", help="for pulled weights")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser


def _told(status: int, message: str) -> int:
    for line in message.splitlines():
        log.error("%s", line)
    return status


if __name__ == "__main__":
    sys.exit(main())
