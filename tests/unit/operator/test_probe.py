"""What the operator makes of a learner's status: read to its end whatever comes between, within a bound, and never somewhere else."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from aiohttp import web

from asyncppo.report.measures import LearnerStatus, MemberView, OldLogits
from asyncppo.wire.client import open_session
from asyncppo_operator.probe import LARGEST_ANSWER, LearnerProbe

TOKEN = "the-token"


def status(members: int) -> bytes:
    views = [
        MemberView(
            name=f"guess-number-rollout-{index}", incarnation=index, state="Ready", version=7, last_seen_seconds=0.5
        )
        for index in range(members)
    ]
    told = LearnerStatus(
        job="guess",
        phase="Running",
        update=3,
        updates=9,
        version=7,
        old_logits=OldLogits(strategy="Interruption", exact=True),
        members=views,
    )
    return msgspec.json.encode(told)


@pytest.fixture
async def learner() -> AsyncIterator[tuple[Callable[[web.StreamResponse | list[bytes]], None], str, list[web.Request]]]:
    """Set what the learner at the url answers: a response, or parts of a body that come one after the other."""
    answers: list[web.StreamResponse | list[bytes]] = []
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        content = answers[-1]
        if not isinstance(content, list):
            return content
        response = web.StreamResponse()
        await response.prepare(request)
        for part in content:
            await response.write(part)
            await asyncio.sleep(0.02)
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield answers.append, f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


async def asked_once(url: str) -> LearnerProbe:
    async with open_session() as session:
        heard = asyncio.Event()
        probe = LearnerProbe(session, 60.0, heard.set)
        probe.aim(url, TOKEN)
        await asyncio.wait_for(heard.wait(), 10)
        probe.close()
        return probe


@pytest.mark.parametrize("members", [0, 6, 1024])
async def test_a_status_is_read_to_its_end(
    learner: tuple[Callable[[web.StreamResponse | list[bytes]], None], str, list[web.Request]], members: int
) -> None:
    answers, url, asked = learner
    body = status(members)
    third = len(body) // 3
    answers([body[:third], body[third : 2 * third], body[2 * third :]])
    probe = await asked_once(url)
    assert probe.error == ""
    assert probe.status is not None
    assert len(probe.status.members) == members
    assert asked[0].headers["Authorization"] == f"Bearer {TOKEN}"


async def test_what_is_no_status_is_said_and_neither_inflated_nor_followed(
    learner: tuple[Callable[[web.StreamResponse | list[bytes]], None], str, list[web.Request]],
) -> None:
    answers, url, asked = learner
    for answer, words in (
        (web.Response(body=gzip.compress(b" " * (1 << 27)), headers={"Content-Encoding": "gzip"}), "compressed"),
        (web.Response(status=307, headers={"Location": "http://10.0.0.1:8080/secret"}), "redirects"),
        ([b"x" * LARGEST_ANSWER, b"x"], f"longer than {LARGEST_ANSWER} bytes"),
        ([b"[" * 100_000], "something else than a learner's status"),
        ([b"{}"], "something else than a learner's status"),
    ):
        answers(answer)
        probe = await asked_once(url)
        assert words in probe.error
        assert probe.status is None
    assert {request.path for request in asked} == {"/v1/status"}
