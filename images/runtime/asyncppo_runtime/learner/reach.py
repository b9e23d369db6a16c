"""Whether a member can be called where it says it can. Owns one short question, asked before it counts in syncs: a member that nobody
reaches would cost the whole job a pause deadline at every join."""

import aiohttp

from asyncppo.wire import routes
from asyncppo.wire.client import open_session, refuse_detours

REACH_SECONDS = 5.0


async def unreachable(url: str) -> str:
    """Why nobody who answers /healthz is at `url`; "" when somebody does. No token is sent and no body read."""
    timeout = aiohttp.ClientTimeout(total=REACH_SECONDS)
    try:
        async with (
            open_session() as session,
            session.get(url + routes.HEALTHZ, timeout=timeout, allow_redirects=False) as response,
        ):
            refuse_detours(response)
            return "" if response.status == 200 else f"{routes.HEALTHZ} there answers {response.status}"
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, AssertionError) as error:
        return f"{type(error).__name__} {error}".strip()[:300]
