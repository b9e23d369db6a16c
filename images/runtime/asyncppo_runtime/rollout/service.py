"""The control port: the coordinator's four commands, probes and metrics. Owns the table of routes; the deeds are the membership's.

The commands are refused (409 NotJoined) until the learner has told this worker its incarnation and epoch.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.wire import routes
from asyncppo.wire.server import application, endpoint
from asyncppo.wire.syncing import Flush, Load, Pause, Resume
from asyncppo_runtime.rollout.membership import Membership


def control_application(
    token: str, registry: CollectorRegistry, ready: Callable[[], str], membership: Membership
) -> web.Application:
    """The rollout's HTTP surface. ready: "" or why not."""
    app = application(token, registry, ready)
    table: list[tuple[str, type[Any], Callable[[Any], Awaitable[object]]]] = [
        (routes.PAUSE, Pause, membership.pause),
        (routes.FLUSH, Flush, membership.flush),
        (routes.LOAD, Load, membership.load),
        (routes.RESUME, Resume, membership.resume),
    ]
    for path, kind, handle in table:
        app.router.add_post(path, endpoint(kind, handle))
    return app
