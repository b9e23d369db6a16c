"""What every program's HTTP server has in common: the token on all but the open routes, msgpack bodies, refusals as bodies.

Owns authentication and the codec. Does not own any route's meaning.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from asyncppo.errors import RefusedError
from asyncppo.faults import Moment, at_call
from asyncppo.wire import routes
from asyncppo.wire.client import CONTENT_TYPE
from asyncppo.wire.syncing import Refused

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OPEN_ROUTES = frozenset({routes.HEALTHZ, routes.READYZ, routes.METRICS})
MAX_BODY = 1 << 30

log = logging.getLogger(__name__)


def answer(message: object, status: int = 200) -> web.Response:
    """A msgpack response."""
    return web.Response(body=msgspec.msgpack.encode(message), status=status, content_type=CONTENT_TYPE)


def refusal(status: int, reason: str, message: str) -> web.Response:
    """A refusal a client turns into RefusedError."""
    return answer(Refused(reason, message), status)


def endpoint(kind: type[T], handle: Callable[[T], Awaitable[object]]) -> Handler:
    """Wrap `handle` (struct in, struct out) as an aiohttp handler; a body that is not a `kind` is refused with 400."""

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            message = msgspec.msgpack.decode(await request.read(), type=kind)
        except msgspec.DecodeError as error:
            return refusal(400, "BadMessage", f"{request.path} takes a {kind.__name__}: {error}")
        await at_call(request.path, Moment.BEFORE)
        done = await handle(message)
        await at_call(request.path, Moment.AFTER)
        return answer(done)

    return handler


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn a RefusedError raised inside a handler into its body; log and hide anything unforeseen."""
    try:
        return await handler(request)
    except RefusedError as error:
        return refusal(error.status, error.reason, error.message)
    except web.HTTPException as error:
        return refusal(error.status, "Http", error.reason)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return refusal(500, "InternalError", f"{request.path} failed; the program's log has the trace")


def token_required(token: str) -> Any:
    """Middleware: 401 for every route that is not open, unless the bearer token is the job's. Constant-time comparison."""
    if not token:
        raise ValueError("an empty token would let everybody in")
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Bytes that are no UTF-8 come in as surrogates and go out as the bytes they were.
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if request.path not in OPEN_ROUTES and not hmac.compare_digest(given, expected):
            return refusal(401, "Unauthorized", "this port needs the job's token")
        return await handler(request)

    return check


def application(
    token: str,
    registry: CollectorRegistry,
    ready: Callable[[], str],
) -> web.Application:
    """An aiohttp application with the common routes. `ready()` answers "" when ready, else the reason it is not."""
    app = web.Application(middlewares=[refusals, token_required(token)], client_max_size=MAX_BODY)

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
    return app


async def serve(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Start serving; port 0 takes a free one. Returns the runner (call `cleanup()`) and the port. OSError when it is in use."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    address = runner.addresses[0]
    return runner, int(address[1])
