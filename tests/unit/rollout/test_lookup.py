"""The worker finds its learner by name though every thread of the environments is taken."""

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.wire.client import WireClient
from asyncppo.wire.server import application, serve
from asyncppo_runtime.rollout.lookup import OwnLookup
from asyncppo_runtime.threads import DaemonPool


async def test_a_name_is_found_while_all_other_threads_hang() -> None:
    runner, port = await serve(application("token", CollectorRegistry(), lambda: ""), "127.0.0.1", 0)
    release = threading.Event()
    asyncio.get_running_loop().set_default_executor(DaemonPool(1, "environments"))
    hanging = [asyncio.create_task(asyncio.to_thread(release.wait)) for _ in range(3)]
    await asyncio.sleep(0.01)
    try:
        async with WireClient("token", OwnLookup()) as client:
            with pytest.raises(RefusedError, match="Not Found"):
                await client.get(f"http://localhost:{port}", "/nothing", dict, 20.0)
            with pytest.raises(UnreachableError):
                await client.get("http://no-such-host.invalid:1", "/", dict, 20.0)
    finally:
        release.set()
        await asyncio.gather(*hanging)
        await runner.cleanup()
