"""The operator's program: `python -m asyncppo_operator.main [--config FILE]`.

Owns the order of start and stop: port, Lease, fleet, kopf. Exit 0 after SIGTERM or SIGINT, 1 when the Lease or kopf is lost (the pod is
started again and waits for its turn), 2 for a wrong configuration.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import kopf
from prometheus_client import CollectorRegistry, ProcessCollector

from asyncppo_operator import handlers, health
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.errors import ApiError, SettingsError
from asyncppo_operator.fleet import Fleet
from asyncppo_operator.kinds import JOB, POD, STATEFUL_SET
from asyncppo_operator.lease import Election
from asyncppo_operator.mirror import JobMirror
from asyncppo_operator.settings import Settings, load
from asyncppo_operator.telemetry import Telemetry

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


async def run(settings: Settings, stop: asyncio.Event) -> int:
    """Until `stop`. Returns the exit status."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry)
    telemetry.build(version("asyncppo"))
    async with await Cluster.connect(telemetry) as cluster:
        identity = os.environ.get("POD_ID") or f"{socket.gethostname()}-{os.getpid()}"
        fleet = Fleet(cluster, settings, telemetry, identity)
        ProcessCollector(registry=registry)
        registry.register(JobMirror(lambda: fleet.loops.values()))
        own = settings.lease
        election = Election(cluster, settings.namespace, own.name, identity, own.duration_seconds, telemetry)

        def unready() -> str:
            return health.unready(
                telemetry, (JOB.kind, POD.kind, STATEFUL_SET.kind), own.enabled and not election.leading
            )

        try:
            runner = await health.serve(settings.listen, registry, unready)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {settings.listen}: {error.strerror}; set `listen` to a free port"
            ) from error
        try:
            if own.enabled and not await _first(election.acquire(), stop):
                return 0
            telemetry.leading(True)
            return await _lead(settings, fleet, election, stop)
        finally:
            await election.release()
            await runner.cleanup()


async def _lead(settings: Settings, fleet: Fleet, election: Election, stop: asyncio.Event) -> int:
    """The active replica's life."""
    while not stop.is_set():
        try:
            await fleet.start()
            break
        except ApiError as error:
            log.warning("cannot start yet: %s; next try in %.0f s", error, RETRY_SECONDS)
            await _first(asyncio.sleep(RETRY_SECONDS), stop)
    tasks: list[asyncio.Task[None]] = []
    try:
        operator = asyncio.create_task(
            kopf.operator(
                registry=handlers.registry(fleet),
                settings=handlers.settings(),
                standalone=True,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
                stop_flag=stop,
            ),
            name="kopf",
        )
        tasks.append(operator)
        if settings.lease.enabled:
            tasks.append(asyncio.create_task(election.keep(), name="lease"))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if operator.done() and operator.exception() is None:
            return 0
        if operator.done():
            log.error("kopf ended: %s", operator.exception())
        return 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await fleet.stop()


async def _first(work: object, stop: asyncio.Event) -> bool:
    """Whether `work` ended before `stop` was set."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


async def _with_signals(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return await run(settings, stop)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="asyncppo-operator", description="Runs AsyncPPOJobs on Kubernetes.")
    parser.add_argument("--config", type=Path, help="YAML configuration, as the chart writes it")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel("WARNING")
    try:
        return asyncio.run(_with_signals(load(options.config)))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except ApiError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
