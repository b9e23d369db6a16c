"""The token: on every route but the three open ones, of the learner and of the rollout, whatever is sent instead of it."""

import re
import socket
from collections.abc import AsyncIterator
from unittest.mock import MagicMock

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.errors import UserError
from asyncppo.wire.arguments import parse_metrics
from asyncppo.wire.server import OPEN_ROUTES, application, serve
from asyncppo.wire.tokens import derive, identify
from asyncppo_runtime.learner.service import learner_application
from asyncppo_runtime.rollout.service import control_application

TOKEN = "the-token-of-the-job"


async def weights(_: web.Request) -> web.StreamResponse:
    raise AssertionError("reached without the token")


def untouched() -> MagicMock:
    return MagicMock(side_effect=AssertionError("reached without the token"))


def learner() -> web.Application:
    desk = untouched()
    desk.weights = weights
    return learner_application(
        token=TOKEN,
        job_uid="uid",
        registry=CollectorRegistry(),
        ready=lambda: "",
        experience=untouched(),
        membership=untouched(),
        synchronization=untouched(),
        desk=desk,
        weights=weights,
        status=untouched(),
        stop=untouched(),
        storage_failed=untouched(),
        context_length=64,
    )


def rollout() -> web.Application:
    return control_application(TOKEN, CollectorRegistry(), lambda: "loading", MagicMock())


@pytest.fixture(params=[learner, rollout])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[web.Application, str]]:
    """The application and its base URL."""
    app = request.param()
    runner, port = await serve(app, "127.0.0.1", 0)
    yield app, f"http://127.0.0.1:{port}"
    await runner.cleanup()


def closed_routes(app: web.Application) -> list[tuple[str, str]]:
    """(method, path) of every route that needs the token."""
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return sorted((method, path.replace("{version}", "0")) for method, path in found if path not in OPEN_ROUTES)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer ",
        b"Bearer the-token-of-the-jo",
        TOKEN.encode(),
        b"Bearer \xff\xfe",
        b"Basic " + TOKEN.encode(),
    ],
)
async def test_nothing_but_the_token_opens_a_closed_route(
    served: tuple[web.Application, str], header: bytes | None
) -> None:
    app, url = served
    routes = closed_routes(app)
    assert len(routes) >= 4
    headers = {} if header is None else {"Authorization": header.decode(errors="surrogateescape")}
    async with aiohttp.ClientSession() as session:
        for method, path in routes:
            async with session.request(method, url + path, headers=headers, data=b"x") as answer:
                assert answer.status == 401, (method, path)


async def test_the_open_routes_need_none_and_the_token_opens_the_rest(served: tuple[web.Application, str]) -> None:
    app, url = served
    async with aiohttp.ClientSession() as session:
        for path in OPEN_ROUTES:
            async with session.get(url + path) as answer:
                assert answer.status in (200, 503), path
        posts = [path for method, path in closed_routes(app) if method == "POST" and path != "/v1/stop"]
        for path in posts:
            async with session.post(url + path, headers={"Authorization": f"Bearer {TOKEN}"}, data=b"\xc1") as answer:
                assert answer.status == 400, path  # let in, and its body is no message


def test_an_empty_token_is_none() -> None:
    with pytest.raises(ValueError, match="empty token"):
        application("", CollectorRegistry(), lambda: "")
    with pytest.raises(ValueError, match="empty token"):
        identify("")
    with pytest.raises(ValueError, match="empty key"):
        derive("", "job")


async def test_a_port_of_its_own_for_metrics_has_no_route_that_needs_a_token_and_the_other_no_metrics() -> None:
    app = learner()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = int(taken.getsockname()[1])
    runner, port = await serve(app, "127.0.0.1", 0, ("127.0.0.1", free))
    control, scraped = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free}"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:

        async def status(method: str, url: str) -> int:
            async with session.request(method, url, data=b"\xc1") as answer:
                return answer.status

        for path in ("/healthz", "/readyz"):
            assert (await status("GET", control + path), await status("GET", scraped + path)) == (200, 200)
        assert (await status("GET", control + "/metrics"), await status("GET", scraped + "/metrics")) == (404, 200)
        for method, path in closed_routes(app):
            assert await status(method, scraped + path) == 404, path
        await runner.cleanup()
        with pytest.raises(aiohttp.ClientError):
            await status("GET", scraped + "/metrics")


@pytest.mark.parametrize("listen", ["8081", ":8081", "0.0.0.0:x", "0.0.0.0:99999"])
def test_a_metrics_port_that_is_none_is_refused_by_its_name(listen: str) -> None:
    with pytest.raises(UserError, match=f"--metrics-listen {re.escape(listen)}: give HOST:PORT"):
        parse_metrics(listen)
    assert parse_metrics("") is None
    assert parse_metrics("0.0.0.0:8081") == ("0.0.0.0", 8081)
