"""The operator's own HTTP port: /healthz, /readyz, /metrics.

Owns what healthy and ready mean. Healthy: the event loop turns. Ready: the API server answers, the watches are heard of, no right is
missing; a replica that waits for the Lease is ready when it can ask for it.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.wire import server
from asyncppo_operator.informer import WATCH_SECONDS
from asyncppo_operator.telemetry import Telemetry

# A watch is heard of at its regular end at the latest.
LONGEST_SILENCE = 2.0 * WATCH_SECONDS


def unready(telemetry: Telemetry, watched: tuple[str, ...], following: bool) -> str:
    """Why this replica is not ready; empty when it is."""
    if telemetry.unreachable_since is not None:
        return "the API server does not answer"
    if following:
        return ""
    if telemetry.missing:
        return f"rights are missing: {', '.join(telemetry.missing)}"
    for kind in watched:
        age = telemetry.watch_age(kind)
        if age is None:
            return f"{kind} objects were not listed yet"
        if age > LONGEST_SILENCE:
            return f"the watch of {kind} has been silent for {age:.0f} s"
    return ""


async def serve(listen: str, registry: CollectorRegistry, ready: Callable[[], str]) -> web.AppRunner:
    """Serve until the runner is cleaned up. OSError when the port is taken."""
    host, _, port = listen.rpartition(":")
    runner, _ = await server.serve(server.open_application(registry, ready), host.strip("[]") or None, int(port))
    return runner
