"""A rollout for tests of the runner: a real process that answers /healthz and /metrics and drains on SIGTERM.

Flags after the runner's own say how it misbehaves. Not part of the product.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from asyncppo.metrics import rollout as metrics
from asyncppo.wire.server import application, serve


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--learner", required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--advertise", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--crash-always", action="store_true")
    parser.add_argument("--hang-once", choices=("serving", "starting"), default="")
    parser.add_argument("--ignore-term", action="store_true")
    return parser.parse_args()


async def main() -> None:
    arguments = parse()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    (arguments.directory / "pid").write_text(str(os.getpid()))
    if arguments.crash_always:
        print("cannot load the engine", flush=True)
        sys.exit(1)
    hung = arguments.directory / "hung-once"
    if arguments.hang_once == "starting" and not hung.exists():
        hung.touch()
        time.sleep(600)  # noqa: ASYNC251  (blocking the loop is the point)
    host, _, port = arguments.listen.rpartition(":")
    registry = CollectorRegistry()
    metrics.SAMPLING_SECONDS.counter(registry).inc(30.0)
    metrics.ENVIRONMENT_SECONDS.counter(registry).inc(10.0)
    runner, _ = await serve(application("unused", registry, lambda: ""), host, int(port))
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, (lambda: None) if arguments.ignore_term else terminated.set
    )
    (arguments.directory / "serving").touch()
    if arguments.hang_once == "serving" and not hung.exists():
        await asyncio.sleep(1.0)
        hung.touch()
        time.sleep(600)  # noqa: ASYNC251  (blocking the loop is the point)
    await terminated.wait()
    (arguments.directory / "drained").touch()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
