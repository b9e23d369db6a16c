"""What is refused before anything is done with it: bodies that are too long, compressed, nested or numbered beyond the ledger; answers
that are too long, compressed or lead elsewhere; names and urls that are none."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from asyncppo.errors import UnreachableError
from asyncppo.wire.address import url_fault
from asyncppo.wire.bounds import LARGEST
from asyncppo.wire.client import ANSWER_LIMIT, WireClient
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import GiveBack, LeaseRequest, Upload
from asyncppo.wire.membership import Heartbeat, Join, Leave, Ready
from asyncppo.wire.old_logits import GiveBackWork, Scored, TakeWork, WorkerJoin
from asyncppo.wire.server import application, endpoint, serve
from asyncppo.wire.syncing import Begin, Finish, Flush, Load, Pause, Resume, Seal, SyncCall

TOKEN = "the-token"
MESSAGES = [
    *(
        GiveBack,
        LeaseRequest,
        Upload,
        Heartbeat,
        Join,
        Leave,
        Ready,
        GiveBackWork,
        Scored,
        TakeWork,
        WorkerJoin,
        Envelope,
    ),
    *(Begin, Finish, Flush, Load, Pause, Resume, Seal, SyncCall),
]
ENVELOPE = {"job_uid": "u", "epoch": 0, "target": "rollout-0", "incarnation": 1}


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """A server with one route that takes a Ready of at most 1,000 bytes."""
    app = application(TOKEN, CollectorRegistry(), lambda: "")

    async def take(message: Ready) -> Ready:
        return message

    app.router.add_post("/v1/echo", endpoint(Ready, take, limit=1000))
    runner, port = await serve(app, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{port}/v1/echo"
    await runner.cleanup()


def ready(**changes: object) -> bytes:
    return msgspec.msgpack.encode({"envelope": ENVELOPE, "version": 1, "weights_hash": "h", **changes})


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (ready(), {}, 200, b""),
        (ready(version=LARGEST), {}, 200, b""),
        (ready(version=2**63), {}, 400, b"<= 9223372036854775807"),
        (ready(version=2**64 - 1), {}, 400, b"BadMessage"),
        (ready(envelope={**ENVELOPE, "incarnation": 2**63}), {}, 400, b"incarnation"),
        (ready(envelope={**ENVELOPE, "epoch": -1}), {}, 400, b"epoch"),
        (ready(envelope={**ENVELOPE, "target": "a/../b"}), {}, 400, b"target"),
        (ready(weights_hash="h" * 129), {}, 400, b"weights_hash"),
        (ready(more="x" * 1000), {}, 413, b"at most 1000 bytes"),
        (gzip.compress(ready(), mtime=0), {"Content-Encoding": "gzip"}, 415, b"compressed"),
        (zlib.compress(b"\0" * (1 << 26)), {"Content-Encoding": "deflate"}, 415, b"compressed"),
        (b"\x81\xa1x" * 300 + b"\x01", {}, 400, b"BadMessage"),
        (b"\xdd\xff\xff\xff\xff", {}, 400, b"BadMessage"),
        (b"", {}, 400, b"BadMessage"),
    ],
)
async def test_a_body_is_judged_before_it_is_used(
    echo: str, body: bytes, headers: dict[str, str], status: int, words: bytes
) -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        own = {"Authorization": f"Bearer {TOKEN}", **headers}
        async with session.post(echo, data=body, headers=own) as answer:
            assert (answer.status, words in await answer.read()) == (status, True)


async def test_maps_nested_200_000_deep_are_a_bad_message() -> None:
    app = application(TOKEN, CollectorRegistry(), lambda: "")

    async def take(message: Ready) -> Ready:
        return message

    app.router.add_post("/v1/echo", endpoint(Ready, take))
    runner, port = await serve(app, "127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        for nest in (
            b"\x81\xa1x" * 200_000 + b"\x01",
            b"\x91" * 200_000 + b"\x01",
            b"\x82\xa8envelope" * 90_000 + b"\x01",
        ):
            async with session.post(
                f"http://127.0.0.1:{port}/v1/echo", data=nest, headers={"Authorization": f"Bearer {TOKEN}"}
            ) as answer:
                assert answer.status == 400
                assert b"BadMessage" in await answer.read()
    await runner.cleanup()


@given(
    st.sampled_from(MESSAGES),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=8)
        | st.binary(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["envelope", "version", "epoch", "target", "incarnation", "lease_ids", "name", "url", "job_uid"]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    ),
)
def test_a_decoder_answers_with_a_message_within_bounds_or_refuses(kind: type, content: object) -> None:
    try:
        message = msgspec.msgpack.decode(msgspec.msgpack.encode(content), type=kind)
    except msgspec.DecodeError:
        return
    for name in getattr(message, "__struct_fields__", ()):
        value = getattr(message, name)
        if isinstance(value, int):
            assert -1 <= value <= LARGEST


# --- answers ------------------------------------------------------------------------------------------------------------
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def peer() -> AsyncIterator[tuple[Callable[[Answer], None], str]]:
    """Set what the peer at the url answers."""
    handlers: list[Answer] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handlers[-1](request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield handlers.append, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_an_answer_in_pieces_is_read_whole_and_one_that_is_too_long_is_not(
    peer: tuple[Callable[[Answer], None], str],
) -> None:
    answers, url = peer
    parts = [b"x" * 1200, b"y" * 200_000]

    async def pieces(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0.05)
        return response

    answers(pieces)
    async with WireClient(TOKEN) as client:
        assert await client.fetch("GET", url, 5) == (200, b"".join(parts))
        parts.append(b"z" * ANSWER_LIMIT)
        with pytest.raises(UnreachableError, match="longer than 8388608 bytes"):
            await client.fetch("GET", url, 5)


async def test_a_compressed_answer_is_not_inflated_and_a_redirect_not_followed(
    peer: tuple[Callable[[Answer], None], str],
) -> None:
    answers, url = peer
    asked: list[str] = []

    async def bomb(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["Accept-Encoding"])
        body = gzip.compress(b"\0" * (1 << 27), mtime=0)
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=int(request.query["status"]), headers={"Location": f"{url}/secret"})

    async with WireClient(TOKEN) as client:
        answers(bomb)
        with pytest.raises(UnreachableError, match="compressed"):
            await client.get(url, "/v1/sync", dict, 5)
        assert asked == ["identity"]
        answers(elsewhere)
        for status in (301, 302, 303, 307, 308):
            with pytest.raises(UnreachableError, match=r"redirects to .*/secret.* not followed"):
                await client.post(url, f"/first?status={status}", {}, dict, 5)
        assert asked[1:] == ["/first"] * 5


@pytest.mark.parametrize(
    "url",
    ["http://a..b", "//x", "http://", "http://[::1", "http://x:99999", "ftp://x:1", "", "http://" + "a" * 300 + ":1"],
)
async def test_a_url_that_is_none_is_an_answer_that_does_not_come(url: str) -> None:
    async with WireClient(TOKEN) as client:
        with pytest.raises(UnreachableError):
            await client.post(url, "/v1/sync/pause", {}, dict, 5)


# --- names and urls -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://10.1.2.3:1",
        "http://guess-rollout-0.guess-rollout:65535",
        "http://localhost:80",
        "http://a:1",
    ],
)
def test_addresses_are_taken(url: str) -> None:
    assert url_fault(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://a..b",
            "http://a..b:80",
            "//x",
            "",
            "x",
            "http://",
            "http://x",
            "http://x:0",
            "http://x:65536",
            "http://x:",
            "http://:80",
        ),
        *(
            "https://x:80",
            "ftp://x:80",
            "http://x:80/",
            "http://x:80/path",
            "http://x:80?q",
            "http://x:80#f",
            "http://u:p@x:80",
        ),
        *(
            "http://x:80?",
            "http://x:80#",
            "http://[::1%eth0]:80",
            "http://[::1]",
            "http://[x]:80",
            "http://256.1.1.1:80",
            "http://1.2.3:80",
        ),
        *(
            "http://-x:80",
            "http://x-:80",
            "http://x_y:80",
            "http://\u00e4:80",
            "http://x :80",
            "http://x\n:80",
            "http://x:8 0",
        ),
        *("http://" + "a" * 64 + ":80", "http://" + "a." * 127 + "aa:80", "http://x:٣"),
    ],
)
def test_anything_else_is_no_address(url: str) -> None:
    assert "http://HOST:PORT" in url_fault(url)


@given(st.text() | st.from_regex(r"http://[a-z0-9.:\[\]@/?#%-]{0,40}(:[0-9]{0,6})?", fullmatch=True))
def test_a_url_that_is_taken_can_be_called(url: str) -> None:
    if url_fault(url):
        return
    from yarl import URL

    parsed = URL(url)
    assert parsed.scheme == "http"
    assert parsed.host
    assert parsed.explicit_port is not None
    assert 0 < parsed.explicit_port < 65536


@pytest.mark.parametrize("name", ["rollout-0", "a", "guess-number-rollout-1023", "a.b_c", "x" * 253])
def test_names_are_taken(name: str) -> None:
    assert msgspec.convert({"job_uid": "u", "name": name, "url": ""}, Join).name == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "a/b", "ä", "a\n", "x" * 254, "x" * 5_000_000, "\x1b[2J"])
def test_anything_else_is_no_name(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"job_uid": "u", "name": name, "url": ""}, Join)
