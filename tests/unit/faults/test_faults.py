"""The fault hooks: inert unless asked for, strict about what is asked, each fault once."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from asyncppo import faults
from asyncppo.errors import UnreachableError, UserError
from asyncppo.faults import COMMIT, WEIGHTS, Fault, Faults, Kind, Moment, parse_plan
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.server import serve


@pytest.fixture(autouse=True)
def inert(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves its faults behind."""
    monkeypatch.setattr(faults, "_active", None)
    monkeypatch.delenv(faults.VARIABLE, raising=False)


def ask(monkeypatch: pytest.MonkeyPatch, folder: Path, plan: str, role: str) -> None:
    monkeypatch.setenv(faults.VARIABLE, plan)
    monkeypatch.setenv(faults.FOLDER, str(folder))
    faults.activate(role)


def test_a_plan_is_read() -> None:
    plan = parse_plan("learner:Seal:after:crash@3, rollout-1:Load:before:delay=0.5@2,")
    assert plan == (
        Fault(0, "learner", "Seal", Moment.AFTER, Kind.CRASH, 0.0, 3),
        Fault(1, "rollout-1", "Load", Moment.BEFORE, Kind.DELAY, 0.5, 2),
    )
    assert plan[1].concerns("rollout-1")
    assert not plan[1].concerns("rollout-0")
    assert parse_plan("rollout:Load:before:hang@1")[0].concerns("rollout-7")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("learner:Seal:after:crash", "is not ROLE:POINT"),
        ("learner:Seal:after:crash@0", "is not ROLE:POINT"),
        ("learner:Seal:during:crash@1", "before or after"),
        ("learner:Sealing:after:crash@1", "no point Sealing; there are Begin"),
        ("learner:Seal:after:full@1", "full cannot happen at Seal; crash, delay"),
        ("learner:Weights:after:drop@1", "drop cannot happen at Weights"),
        ("learner:Seal:after:drop@1", "makes no calls"),
        ("coordinator:Seal:after:duplicate@1", "duplicated before"),
        ("coordinator:Seal:after:crash=2@1", "takes no seconds"),
    ],
)
def test_a_plan_that_is_wrong_says_what_is_allowed(plan: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_plan(plan)


def test_nothing_happens_unless_asked_for(tmp_path: Path) -> None:
    faults.activate("learner")
    assert faults.inside(COMMIT, Moment.BEFORE) is None
    faults.refuse_write(WEIGHTS, tmp_path / "file")
    assert asyncio.run(faults.at_call(routes.SYNC_SEAL, Moment.AFTER)) is None


def test_a_plan_needs_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(faults.VARIABLE, "learner:Seal:after:crash@1")
    monkeypatch.delenv(faults.FOLDER, raising=False)
    with pytest.raises(UserError, match="must name a folder"):
        faults.activate("learner")


def test_each_fault_happens_once_at_its_count_also_over_restarts(tmp_path: Path) -> None:
    plan = parse_plan("learner:Commit:before:full@2,rollout:Seal:after:hang@1")
    first = Faults("learner", plan, tmp_path)
    assert [first.due(COMMIT, Moment.BEFORE) for _ in range(3)] == [None, plan[0], None]
    assert first.due("Seal", Moment.AFTER) is None, "another role's"
    restarted = Faults("learner", plan, tmp_path)
    assert [restarted.due(COMMIT, Moment.BEFORE) for _ in range(3)] == [None, None, None]


def test_a_full_volume_and_a_truncated_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ask(monkeypatch, tmp_path, "learner:Weights:before:full@1,learner:Weights:after:truncate@1", "learner")
    assert (tmp_path / "learner.pid").read_text() == f"{os.getpid()}\n"
    file = tmp_path / "weights"
    file.write_bytes(bytes(100))
    with pytest.raises(OSError, match="No space left") as full:
        faults.refuse_write(WEIGHTS, file)
    assert full.value.filename == str(file)
    faults.inside(WEIGHTS, Moment.AFTER, file)
    assert file.stat().st_size == 50


class Note(msgspec.Struct):
    text: str


async def test_calls_are_dropped_lost_and_duplicated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = "coordinator:Seal:before:drop@1,coordinator:Seal:after:drop@1,coordinator:Seal:before:duplicate@4"
    ask(monkeypatch, tmp_path, plan, "coordinator-0")
    heard: list[str] = []
    twice = asyncio.Event()

    async def seal(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        heard.append(msgspec.msgpack.decode(body, type=Note).text)
        if heard.count("d") == 2:
            twice.set()
        return web.Response(body=body)

    app = web.Application()
    app.router.add_post(routes.SYNC_SEAL, seal)
    runner, port = await serve(app, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{port}"
    try:
        async with WireClient("token") as client:

            async def say(text: str) -> Note:
                return await client.post(base, routes.SYNC_SEAL, Note(text), Note, 10.0)

            with pytest.raises(UnreachableError, match="dropped on purpose"):
                await say("a")
            assert heard == []
            with pytest.raises(UnreachableError, match="answer was lost on purpose"):
                await say("b")
            await say("c")
            await say("d")
            await asyncio.wait_for(twice.wait(), 60.0)
    finally:
        await runner.cleanup()
    assert heard == ["b", "c", "d", "d"]
