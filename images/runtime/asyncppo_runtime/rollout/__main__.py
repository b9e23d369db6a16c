"""`python -m asyncppo_runtime.rollout`: the command line of a rollout worker, and what its exit status means.

0: told to stop, and stopped in good order. 1: failed (the last lines say why). 2: bad input. 3: the learner refuses this worker for
good (another job, a wrong token). Does not own what a worker does (`worker.py`).
"""

import argparse
import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import NoReturn

from asyncppo import faults
from asyncppo.api.manifest import load_manifest
from asyncppo.errors import RefusedError, UserError
from asyncppo.estimate.choice import settled
from asyncppo.wire.arguments import METRICS_HELP, parse_address, parse_metrics, read_token
from asyncppo.wire.client import WireClient
from asyncppo.wire.server import serve
from asyncppo_runtime.rollout.answers import shortened, told
from asyncppo_runtime.rollout.engines.interface import EngineError
from asyncppo_runtime.rollout.engines.registry import make_engine
from asyncppo_runtime.rollout.holds import HoldWatch
from asyncppo_runtime.rollout.lookup import OwnLookup
from asyncppo_runtime.rollout.undisturbed import CANCELLED
from asyncppo_runtime.rollout.worker import Worker
from asyncppo_runtime.threads import DaemonPool

FAILED, BAD_INPUT, REFUSED = 1, 2, 3
SWITCH_SECONDS = 0.0005
LEAVE_SECONDS = 2.0

log = logging.getLogger("asyncppo.rollout")


class PlainLines(logging.Formatter):
    """Log lines that are short and do nothing on a terminal, whoever's words are in them: asyncio tells of what an environment's own
    tasks raise."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return shortened(super().format(record))


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; the exit status."""
    options = _parser().parse_args(arguments)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainLines("%(asctime)s %(levelname)s rollout: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=options.log_level, handlers=[handler])
    # the engine's thread gives up the interpreter at every torch call; with the default of 5 ms it would wait that long to get it back
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        return _run(options)
    except UserError as error:
        return _told(BAD_INPUT, str(error))
    except EngineError as error:
        return _told(FAILED, f"the engine failed: {error}")
    except RefusedError as error:
        return _told(REFUSED, f"the learner refuses this worker: {error}")
    except asyncio.CancelledError:
        return _told(FAILED, f"the worker's own work cannot go on, {CANCELLED}")


def _run(options: argparse.Namespace) -> int:
    """Work to the end. An environment may raise an exit in a task or a callback of its own, or stop the loop: that ends the run of the
    loop, not the program."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    work = loop.create_task(_work(options))
    try:
        while True:
            try:
                return loop.run_until_complete(work)
            except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
                if work.done() or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    raise
                log.error("a task of the environment's own ended the event loop (%s); going on", told(error))
    finally:
        _cancel_tasks(loop)


def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """What environments have left running. Those that ignore it are left behind with the loop."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    try:
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=LEAVE_SECONDS))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), LEAVE_SECONDS))
    except BaseException as error:  # noqa: BLE001 - the work is done; nothing of this may undo it
        log.warning("tasks of the environment's own ended badly: %s", told(error))
    if not asyncio.all_tasks(loop):
        loop.close()


def leave(status: int) -> NoReturn:
    """End the program, without the threads that environments have left hanging: the interpreter would wait for them for ever."""
    until = monotonic() + LEAVE_SECONDS
    for thread in _others():
        thread.join(max(0.0, until - monotonic()))
    left = _others()
    if not left:
        sys.exit(status)
    log.warning("leaving without %d thread(s) that still run: %s", len(left), ", ".join(t.name for t in left[:8]))
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _others() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]


async def _work(options: argparse.Namespace) -> int:
    faults.activate(options.name)
    job = settled(load_manifest(options.job))
    token = read_token(options.token_file)
    host, port = parse_address(options.listen)
    metrics = parse_metrics(options.metrics_listen)
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--directory {options.directory}: cannot be made ({error.strerror})") from error
    engine = make_engine(job.spec)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DaemonPool(job.spec.rollout.concurrency, "environments"))
    async with WireClient(token, OwnLookup()) as client:
        worker = Worker(job, engine, client, name=options.name, learner=options.learner, directory=options.directory)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        try:
            runner, port = await serve(worker.application(token), host, port, metrics)
        except OSError as error:
            raise UserError(f"--listen {options.listen}: {error.strerror or error}; choose a free address") from error
        log.info("%s of job %s listens on %s:%d", options.name, job.metadata.name, host, port)
        watch = HoldWatch(worker.holds, job.spec.environment.step_timeout_seconds)
        watch.start()
        try:
            await worker.run(options.advertise or f"http://{host}:{port}", options.grace_seconds)
        finally:
            watch.stop()
            await runner.cleanup()
    log.info("stopped")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m asyncppo_runtime.rollout", description="A rollout worker of an AsyncPPOJob."
    )
    parser.add_argument("--job", type=Path, required=True, metavar="FILE", help="the job's manifest")
    parser.add_argument("--learner", required=True, metavar="URL", help="base URL of the learner")
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="where the control port listens; port 0 takes a free one"
    )
    parser.add_argument(
        "--advertise",
        default="",
        metavar="URL",
        help="the control port as the coordinator dials it (default: --listen)",
    )
    parser.add_argument("--metrics-listen", default="", metavar="HOST:PORT", help=METRICS_HELP)
    parser.add_argument("--name", required=True, help="the member's name, the same after a restart")
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="this worker's own token")
    parser.add_argument("--directory", type=Path, required=True, metavar="DIR", help="for pulled weights")
    parser.add_argument("--grace-seconds", type=float, default=20.0, help="time to hand everything back after SIGTERM")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser


def _told(status: int, message: str) -> int:
    for line in message.splitlines():
        log.error("%s", line)
    return status


if __name__ == "__main__":
    leave(main())
