"""What every program's HTTP server has in common: who may call what, msgpack bodies within limits, refusals as bodies.

Owns authentication and the codec. Does not own any route's meaning, which callers there are (`tokens.py`), nor connections (`door.py`).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from asyncppo.errors import RefusedError
from asyncppo.faults import Moment, at_call
from asyncppo.wire import routes
from asyncppo.wire.client import CHUNK, CONTENT_TYPE
from asyncppo.wire.door import Door
from asyncppo.wire.syncing import Refused
from asyncppo.wire.tokens import Caller, Identify, Role, only

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
OPEN_ROUTES = frozenset({routes.HEALTHZ, routes.READYZ, routes.METRICS})
BODY_LIMIT = 1 << 20
"""Bytes of a message that carries neither tokens nor manifests."""
BULK_LIMIT = 1 << 28
"""Bytes of one that does, where nothing tighter is known."""
BODY_SECONDS = 60.0
"""For a body to come, of a caller with a token."""
IDLE_SECONDS = 75.0
"""A caller's connection without a request is closed; its client has dropped it long before."""
DOOR = web.AppKey("door", Door)
CALLER = web.RequestKey("caller", Caller)


@dataclass(frozen=True, slots=True)
class Open:
    """What the open routes show. ready(): "" or why not."""

    registry: CollectorRegistry
    ready: Callable[[], str]


OPEN = web.AppKey("open", Open)
PARTED = web.AppKey("parted", bool)

log = logging.getLogger(__name__)


class OneLine(logging.Filter):
    """Makes what the HTTP library says of broken requests one line each, and one a second: whoever sends them must not fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 1.0
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            words = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            record.msg, record.args = f"{record.getMessage()}: {words}", ()
            record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return True


broken_requests = logging.getLogger(f"{__name__}.http")
if not broken_requests.filters:
    broken_requests.addFilter(OneLine())


def answer(message: object, status: int = 200) -> web.Response:
    """A msgpack response."""
    return web.Response(body=msgspec.msgpack.encode(message), status=status, content_type=CONTENT_TYPE)


def refusal(status: int, reason: str, message: str) -> web.Response:
    """A refusal a client turns into RefusedError."""
    return answer(Refused(reason, message), status)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The request's body. RefusedError 415 for a compressed one, 413 for one above `limit` bytes, 408 for one that does not come."""
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise RefusedError(415, "Compressed", f"{request.path} takes no compressed body ({coding[:40]!r})")
    too_large = RefusedError(413, "TooLarge", f"{request.path} takes at most {limit} bytes")
    if (request.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_chunked(CHUNK):
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError as error:
        raise RefusedError(408, "TooSlow", f"{request.path}: no whole body within {BODY_SECONDS:.0f} s") from error
    return bytes(body)


def endpoint(
    kind: type[T],
    handle: Callable[[T], Awaitable[object]],
    *,
    limit: int = BODY_LIMIT,
    admit: Callable[[web.Request, T], None] = lambda request, message: None,
) -> Handler:
    """Wrap `handle` (struct in, struct out) as an aiohttp handler; a body that is not a `kind` is refused with 400.

    limit: of the body, in bytes. admit: called before `handle`; RefusedError when this caller may not send this message.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            message = msgspec.msgpack.decode(await read_body(request, limit), type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            words = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            return refusal(400, "BadMessage", f"{request.path} takes a {kind.__name__}: {words}")
        admit(request, message)
        await at_call(request.path, Moment.BEFORE)
        done = await handle(message)
        await at_call(request.path, Moment.AFTER)
        return answer(done)

    return handler


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn a RefusedError raised inside a handler into its body; log and hide anything unforeseen."""
    door = request.app[DOOR]
    door.begins(request.protocol)
    try:
        return await handler(request)
    except RefusedError as error:
        return refusal(error.status, error.reason, error.message)
    except web.HTTPException as error:
        return refusal(error.status, "Http", error.reason)
    except (ConnectionError, web.RequestPayloadError) as error:
        # it went away in the middle: no fault of this program, and nobody is there to be answered
        log.info("%s %s: the caller is gone (%s)", request.method, request.path, type(error).__name__)
        return refusal(400, "Gone", "the call broke off")
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return refusal(500, "InternalError", f"{request.path} failed; the program's log has the trace")
    finally:
        door.ends(request.protocol)


def callers_only(identify: Identify) -> Any:
    """Middleware: for every route that is not open 401 without a token, 403 with one whose role has no business there."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in OPEN_ROUTES:
            return await handler(request)
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        caller = identify(shown) if scheme == "Bearer" else None
        if caller is None:
            raise RefusedError(401, "Unauthorized", "this port needs a token of this job")
        resource = request.match_info.route.resource
        if resource is not None and not routes.may_call(caller.role, resource.canonical):
            raise RefusedError(
                403, "NotAllowed", f"{request.path} is not for members of role {caller.role} ({caller.name})"
            )
        if not request.app[DOOR].admit(request.protocol):
            raise RefusedError(
                503, "TooManyConnections", "this port holds as many connections as its descriptors allow"
            )
        request[CALLER] = caller
        return await handler(request)

    return check


def refuse_other_names(request: web.Request, message: object) -> None:
    """RefusedError 403 when a member speaks in another's name. What names its sender does so in its envelope or as `name`."""
    caller: Caller = request[CALLER]
    envelope = getattr(message, "envelope", message)
    said = getattr(envelope, "target", getattr(envelope, "name", None))
    if caller.role is not Role.CONTROL and said != caller.name:
        raise RefusedError(403, "NotYou", f"{caller.name} cannot speak for {said}")


def application(
    identify: Identify | str,
    registry: CollectorRegistry,
    ready: Callable[[], str],
) -> web.Application:
    """An aiohttp application with the common routes. identify: whose a token is; a text: the one token there is.

    `ready()` answers "" when ready, else the reason it is not.
    """
    known = only(identify) if isinstance(identify, str) else identify
    app = web.Application(middlewares=[refusals, callers_only(known)], client_max_size=BULK_LIMIT)
    app[DOOR] = Door()
    app[OPEN] = Open(registry, ready)
    open_routes(app, app[OPEN])
    return app


def open_application(registry: CollectorRegistry, ready: Callable[[], str]) -> web.Application:
    """The open routes and no others."""
    app = web.Application(middlewares=[refusals])
    app[DOOR] = Door()
    open_routes(app, Open(registry, ready))
    return app


def open_routes(app: web.Application, shown: Open) -> None:
    """The routes that need no token. /metrics is not found where another port has it."""

    async def healthz(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.StreamResponse:
        reason = shown.ready()
        return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)

    async def metrics(request: web.Request) -> web.StreamResponse:
        if request.app.get(PARTED):
            raise web.HTTPNotFound(reason="scraped on a port of its own")
        return web.Response(body=generate_latest(shown.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get(routes.HEALTHZ, healthz)
    app.router.add_get(routes.READYZ, readyz)
    app.router.add_get(routes.METRICS, metrics)


async def serve(
    app: web.Application, host: str | None, port: int, metrics: tuple[str, int] | None = None
) -> tuple[web.AppRunner, int]:
    """Start serving; port 0 takes a free one, no host all addresses. Returns the runner (call `cleanup()`) and the port. OSError when it is
    in use.

    metrics: host and port of a second port, which has the open routes alone; /metrics is there and no longer on the first.
    """
    door = app.setdefault(DOOR, Door())
    listening: list[asyncio.Server] = []
    beside: list[web.AppRunner] = []

    async def stop_listening(_: web.Application) -> None:
        for server in listening:
            server.close()
        for other in beside:
            await other.cleanup()

    if metrics is not None:
        other, _ = await serve(open_application(app[OPEN].registry, app[OPEN].ready), *metrics)
        beside.append(other)
        app[PARTED] = True

    app.on_shutdown.append(stop_listening)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=5.0,
        auto_decompress=False,
        keepalive_timeout=IDLE_SECONDS,
        logger=broken_requests,
    )
    await runner.setup()
    assert runner.server is not None
    door.make = runner.server
    # As many may wait to be accepted as there is room: they are accepted all at once.
    try:
        server = await asyncio.get_running_loop().create_server(door, host, port, backlog=min(128, door.room.strangers))
    except BaseException:
        await runner.cleanup()
        raise
    listening.append(server)
    return runner, int(server.sockets[0].getsockname()[1])
