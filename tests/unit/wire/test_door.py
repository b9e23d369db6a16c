"""Connections: half-sent requests neither keep others out nor stay, broken requests do not fill a log."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.wire import server as wire_server
from asyncppo.wire.client import WireClient
from asyncppo.wire.door import Door, Room
from asyncppo.wire.server import DOOR, OneLine, application, broken_requests, serve

TOKEN = "the-token"


@contextlib.asynccontextmanager
async def served(door: Door) -> AsyncIterator[tuple[web.Application, str, int]]:
    app = application(TOKEN, CollectorRegistry(), lambda: "")
    app[DOOR] = door

    async def closed(_: web.Request) -> web.StreamResponse:
        return web.Response(text="in")

    app.router.add_get("/v1/closed", closed)
    runner, port = await serve(app, "127.0.0.1", 0)
    try:
        yield app, f"http://127.0.0.1:{port}", port
    finally:
        await runner.cleanup()


async def half_sent(port: int, count: int, text: bytes = b"GET /metrics HTTP/1.1\r\n") -> list[socket.socket]:
    """Connections that send this and nothing more."""
    made = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port))
        one.setblocking(False)
        one.sendall(text)
        made.append(one)
        await asyncio.sleep(0)
    return made


def close_all(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


@pytest.mark.parametrize(("descriptors", "strangers", "known"), [(40, 16, 20), (256, 64, 128), (1 << 20, 256, 1 << 19)])
def test_connections_never_take_all_descriptors(descriptors: int, strangers: int, known: int) -> None:
    assert Room.of(descriptors) == Room(strangers, known)


async def test_half_sent_requests_keep_nobody_out() -> None:
    door = Door(Room(strangers=8, known=8))
    async with served(door) as (_, url, port), WireClient(TOKEN) as client:
        writers = await half_sent(port, 60)
        assert await client.fetch("GET", f"{url}/healthz", 5) == (200, b"ok\n")
        assert await client.fetch("GET", f"{url}/v1/closed", 5) == (200, b"in")
        await asyncio.sleep(0.6)
        strangers, known = door.counts
        assert strangers <= 8
        assert known == 1
        assert door.evicted >= 50
        writers += await half_sent(port, 20)  # a caller that is known is not what makes room
        assert door.counts[1] == 1
        assert await client.fetch("GET", f"{url}/v1/closed", 5) == (200, b"in")
        close_all(writers)


async def test_who_is_being_answered_makes_room_last() -> None:
    door = Door(Room(strangers=3, known=8))
    door.make = lambda: cast("web.RequestHandler", asyncio.Protocol())
    probe, *_ = [door() for _ in range(3)]
    door.begins(probe)
    for _ in range(5):
        door()
    assert door.counts[0] == 3
    door.ends(probe)
    assert (door.evicted, probe in door._strangers) == (5, True)
    busy = [door() for _ in range(3)]
    for one in busy:
        door.begins(one)
    newest = door()
    assert list(door._strangers) == [*busy[1:], newest], "all are busy: the oldest of them"


async def test_a_request_that_does_not_come_is_not_waited_for_for_ever() -> None:
    door = Door(Room(strangers=8, known=8), seconds=0.3)
    async with served(door) as (_, _, port):
        sockets = await half_sent(port, 1)
        received = b"?"
        with contextlib.suppress(ConnectionError):  # aborted: a reset, or an end without an answer
            received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sockets[0], 100), 5)
        assert received in (b"?", b"")
        assert door.counts == (0, 0)
        close_all(sockets)


async def test_callers_with_a_token_are_bounded_too_and_told_why() -> None:
    door = Door(Room(strangers=8, known=2))
    async with served(door) as (_, url, port), WireClient(TOKEN) as client:
        head = f"GET /v1/closed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        writers = await half_sent(port, 2, head)
        for one in writers:
            assert b"200" in await asyncio.get_running_loop().sock_recv(one, 100)
        status, body = await client.fetch("GET", f"{url}/v1/closed", 5)
        assert (status, b"TooManyConnections" in body) == (503, True)
        close_all(writers)
        await asyncio.sleep(0.1)
        assert (await client.fetch("GET", f"{url}/v1/closed", 5))[0] == 200


def test_broken_requests_are_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    assert any(isinstance(one, OneLine) for one in broken_requests.filters)
    before, broken_requests.filters = broken_requests.filters, [OneLine()]
    try:
        with caplog.at_level(logging.INFO, broken_requests.name):
            for _ in range(1000):
                try:
                    raise ValueError("bad\nhead" + "x" * 5000)
                except ValueError:
                    broken_requests.exception("Error handling request from %s", "10.0.0.1")
    finally:
        broken_requests.filters = before
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None
    assert len(caplog.records[0].getMessage()) < 300
    assert caplog.records[0].levelno == logging.INFO


async def test_a_caller_that_goes_away_in_the_middle_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        begun.set()
        await wire_server.read_body(request, 100)
        raise AssertionError("the body never comes whole")

    app = application(TOKEN, CollectorRegistry(), lambda: "")
    app.router.add_post("/v1/slow", slow)
    runner, port = await serve(app, "127.0.0.1", 0)
    with caplog.at_level(logging.INFO):
        head = f"POST /v1/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\nAuthorization: Bearer {TOKEN}\r\n\r\nabc"
        sockets = await half_sent(port, 1, head.encode())
        await asyncio.wait_for(begun.wait(), 5)
        close_all(sockets)
        await asyncio.sleep(0.3)
    await runner.cleanup()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
