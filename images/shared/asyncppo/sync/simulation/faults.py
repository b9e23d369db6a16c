"""What can happen between a request and its answer. Owns the hooks of the simulated peers; inert until asked for."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Hook = Callable[[], Awaitable[None]]


class Faults:
    """before[path], after[path]: awaited once, at the next request of that path, before it is carried out or before its answer is sent.

    drop[path]: how many of the next requests of that path are carried out, and then the connection is cut instead of an answer.
    hang[path]: requests of that path wait for the event. calls: paths of all requests, in order.
    """

    def __init__(self) -> None:
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        self.drop: dict[str, int] = {}
        self.hang: dict[str, asyncio.Event] = {}
        self.calls: list[str] = []


def faulty(faults: Faults, path: str, handler: Handler) -> Handler:
    """`handler` with the hooks of `path`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        faults.calls.append(path)
        if path in faults.hang:
            await faults.hang[path].wait()
        hook = faults.before.pop(path, None)
        if hook is not None:
            await hook()
        response = await handler(request)
        hook = faults.after.pop(path, None)
        if hook is not None:
            await hook()
        if faults.drop.get(path, 0) > 0:
            faults.drop[path] -= 1
            if request.transport is not None:
                request.transport.abort()
        return response

    return handle
