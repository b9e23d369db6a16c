"""A member that cannot be called where it says takes no part, and is told why; it costs nobody a deadline."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from tests.unit.ledger.builders import JOB, published_hash, record, settings

from asyncppo.errors import RefusedError
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.membership import Join, MemberState, Ready
from asyncppo.wire.server import application, serve
from asyncppo_runtime.learner import reach
from asyncppo_runtime.learner.membership import Membership
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.ledger.ledger import Ledger


@pytest.fixture
async def membership(tmp_path: Path) -> AsyncIterator[Membership]:
    ledger = OwnThread("ledger", lambda: Ledger.open(tmp_path / "ledger.db", settings(), 0.0))

    async def close_abandoned(epoch: int) -> None:
        raise AssertionError(epoch)

    await ledger(Ledger.publish, record(0, parent=-1), None, [], [], b"", 0.0)
    yield Membership(ledger, Notice(), lambda: False, close_abandoned, 60.0)
    ledger.close(Ledger.close)


@contextlib.asynccontextmanager
async def answering(status: int) -> AsyncIterator[str]:
    app = web.Application()

    async def healthz(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"})

    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def ready(incarnation: int) -> Ready:
    return Ready(Envelope(job_uid=JOB, epoch=0, target="rollout-0", incarnation=incarnation), 0, published_hash(0))


async def test_a_member_that_answers_becomes_ready_and_one_that_does_not_may_ask_again(membership: Membership) -> None:
    app = application("token", CollectorRegistry(), lambda: "")
    runner, port = await serve(app, "127.0.0.1", 0)
    joined = await membership.join(Join(JOB, "rollout-0", f"http://127.0.0.1:{port}"))
    await runner.cleanup()
    began = time.monotonic()
    with pytest.raises(RefusedError, match=r"NotReached.*127\.0\.0\.1.*--advertise"):
        await membership.ready(ready(joined.incarnation))
    assert time.monotonic() - began < 2 * reach.REACH_SECONDS
    (view,) = await membership.views()
    assert view.state == MemberState.JOINING  # in no sync, waited for by nobody
    again, _ = await serve(application("token", CollectorRegistry(), lambda: ""), "127.0.0.1", port)
    assert (await membership.ready(ready(joined.incarnation))).state is MemberState.READY
    await again.cleanup()
    # it is a member now: whether it still answers is for the coordinator to find out
    assert (await membership.ready(ready(joined.incarnation))).state is MemberState.READY


@pytest.mark.parametrize("url", ["http://a..b", "//x", "http://x", "http://x:80/path", "http://" + "a" * 5000 + ":1"])
async def test_a_url_that_is_none_is_refused_at_the_door(membership: Membership, url: str) -> None:
    with pytest.raises(RefusedError, match=r"BadAddress.*rollout-0.*http://HOST:PORT") as refused:
        await membership.join(Join(JOB, "rollout-0", url))
    assert refused.value.status == 400
    assert await membership.views() == []


@pytest.mark.parametrize(("status", "words"), [(200, ""), (503, "answers 503"), (302, "redirects")])
async def test_what_answers_at_a_url(status: int, words: str) -> None:
    async with answering(status) as url:
        found = await reach.unreachable(url)
    assert words in found
    assert bool(found) == bool(words)


async def test_a_port_that_takes_calls_and_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "REACH_SECONDS", 0.2)
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert "Timeout" in await reach.unreachable(f"http://127.0.0.1:{port}")
    over.set()
    server.close()
    await server.wait_closed()
