"""The operator's own HTTP port: /healthz, /readyz, /metrics.

Owns what healthy and ready mean. Healthy: the event loop turns. Ready: the API server answers, the watches are heard of, no right is
missing; a replica that waits for the Lease is ready when it can ask for it.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from asyncppo.wire import routes
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
    app = web.Application()

    async def healthz(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.StreamResponse:
        reason = ready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get(routes.HEALTHZ, healthz)
    app.router.add_get(routes.READYZ, readyz)
    app.router.add_get(routes.METRICS, metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
    return runner
