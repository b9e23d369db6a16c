"""Tokens: what a member's opens and what it does not, route by route; that one leads to no other; the program that makes one."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from asyncppo.wire import routes
from asyncppo.wire.server import OPEN_ROUTES, serve
from asyncppo.wire.tokens import (
    Caller,
    Role,
    control_token,
    derive,
    identify,
    member_token,
    only,
    role_key,
    token_of,
)
from asyncppo_runtime.learner.service import learner_application
from asyncppo_runtime.rollout.service import control_application

CONTROL = control_token("the-install-key", "uid-1")
ENVELOPE = {"job_uid": "uid", "epoch": 0, "target": "rollout-0", "incarnation": 1}
SYNC = {"job_uid": "uid", "coordinator": "c", "epoch": 1}
BODIES: dict[str, dict[str, Any]] = {
    routes.LEASES: {"envelope": ENVELOPE, "count": 1, "version": 0},
    routes.GIVE_BACK: {"envelope": ENVELOPE, "lease_ids": []},
    routes.TRAJECTORIES: {"envelope": ENVELOPE, "trajectories": []},
    routes.SEGMENTS: {"envelope": ENVELOPE, "trajectories": []},
    routes.JOIN: {"job_uid": "uid", "name": "rollout-0", "url": "http://x:1"},
    routes.READY: {"envelope": ENVELOPE, "version": 0, "weights_hash": ""},
    routes.HEARTBEAT: {"envelope": ENVELOPE, "version": 0, "lease_ids": []},
    routes.LEAVE: {"envelope": ENVELOPE},
    routes.DRAIN: ENVELOPE,
    routes.SYNC_BEGIN: {"job_uid": "uid", "coordinator": "c", "expected_epoch": 0},
    routes.SYNC_SCORE: SYNC,
    routes.SYNC_SEAL: {**SYNC, "version": 0, "members": [], "manifests": [], "fenced": []},
    routes.SYNC_STEP: SYNC,
    routes.SYNC_PUBLISH: SYNC,
    routes.SYNC_FINISH: {**SYNC, "loaded": [], "fenced": [], "seconds": {}},
    routes.WORKER_JOIN: {"job_uid": "uid", "name": "old-logit-0", "url": "http://x:1"},
    routes.WORKER_TAKE: {"envelope": {**ENVELOPE, "target": "old-logit-0"}, "loaded_version": -1, "wait_seconds": 0.0},
    routes.WORKER_SCORES: {
        "envelope": {**ENVELOPE, "target": "old-logit-0"},
        "version": 0,
        "train_hash": "",
        "scores": [],
    },
    routes.WORKER_GIVE_BACK: {"envelope": {**ENVELOPE, "target": "old-logit-0"}, "version": 0, "message": ""},
    routes.STOP: {},
}
NAMED = {path for path in BODIES if path in routes.ALLOWED[Role.ROLLOUT] | routes.ALLOWED[Role.OLD_LOGIT]}


class Board:
    """A learner's parts, of which every method answers; `reached` says that one was."""

    def __init__(self) -> None:
        self.reached = 0

    async def __call__(self, *_: object) -> dict[str, str]:
        self.reached += 1
        return {}

    def __getattr__(self, name: str) -> "Board":
        return self


async def file(_: web.Request) -> web.StreamResponse:
    return web.Response(text="weights")


@pytest.fixture
async def learner() -> AsyncIterator[tuple[web.Application, str, Board]]:
    board = Board()
    desk = MagicMock(join=board, take=board, scores=board, give_back=board, weights=file)
    app = learner_application(
        token=CONTROL,
        job_uid="uid",
        registry=CollectorRegistry(),
        ready=lambda: "",
        experience=board,  # type: ignore[arg-type]
        membership=board,  # type: ignore[arg-type]
        synchronization=board,  # type: ignore[arg-type]
        desk=desk,
        weights=file,
        status=board,  # type: ignore[arg-type]
        stop=lambda: None,
        storage_failed=AsyncMock(),
        context_length=64,
    )
    runner, port = await serve(app, "127.0.0.1", 0)
    yield app, f"http://127.0.0.1:{port}", board
    await runner.cleanup()


def closed_routes(app: web.Application) -> list[tuple[str, str]]:
    found = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return sorted((method, path) for method, path in found if path not in OPEN_ROUTES and method != "HEAD")


def told(path: str, name: str | None = None) -> bytes:
    """A good message for a path; in the name of another when given."""
    body = BODIES.get(path, {})
    if name is not None:
        body = {**body, "name": name} if "name" in body else {**body, "envelope": {**body["envelope"], "target": name}}
    return msgspec.msgpack.encode(body)


async def statuses(app: web.Application, url: str, token: str) -> dict[str, int]:
    """Path → what a caller with this token is answered."""
    found = {}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        for method, path in closed_routes(app):
            async with session.request(method, url + path.replace("{version}", "0"), data=told(path)) as answer:
                found[path] = answer.status
    return found


async def test_every_route_is_somebodys_and_nobody_elses(learner: tuple[web.Application, str, Board]) -> None:
    app, url, _ = learner
    everything = {path for _, path in closed_routes(app)}
    assert everything == set(BODIES) | {routes.SYNC, routes.STATUS, routes.WEIGHTS, routes.TRAIN_WEIGHTS}
    for role, name in ((Role.ROLLOUT, "rollout-0"), (Role.OLD_LOGIT, "old-logit-0")):
        answered = await statuses(app, url, token_of(CONTROL, role, name))
        assert {path for path, status in answered.items() if status == 200} == routes.ALLOWED[role]
        assert {status for path, status in answered.items() if path not in routes.ALLOWED[role]} == {403}
    # what the review could do with any token: never with a member's
    for path in (routes.STOP, routes.SYNC_SEAL, routes.DRAIN, routes.SYNC_BEGIN, routes.SYNC_FINISH, routes.STATUS):
        assert not any(path in allowed for allowed in routes.ALLOWED.values())
    assert 403 not in (await statuses(app, url, CONTROL)).values()


async def test_a_member_speaks_for_itself_only(learner: tuple[web.Application, str, Board]) -> None:
    app, url, board = learner
    assert {path for path in BODIES if "envelope" in BODIES[path] or "name" in BODIES[path]} == NAMED
    for path in sorted(NAMED):
        role = Role.ROLLOUT if path in routes.ALLOWED[Role.ROLLOUT] else Role.OLD_LOGIT
        before = board.reached
        for name, status in ((f"{role}-0", 200), (f"{role}-1", 403), ("x" * 253, 403)):
            headers = {"Authorization": f"Bearer {token_of(CONTROL, role, f'{role}-0')}"}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(url + path, data=told(path, name)) as answer,
            ):
                assert (path, name, answer.status) == (path, name, status)
                if status == 403:
                    assert b"cannot speak for" in await answer.read()
        assert board.reached == before + 1
    assert len(closed_routes(app)) >= 20


@pytest.mark.parametrize(
    "shown",
    [
        role_key(CONTROL, Role.ROLLOUT),
        member_token(CONTROL, Role.ROLLOUT, "rollout-0"),
        member_token(role_key(CONTROL, Role.OLD_LOGIT), Role.ROLLOUT, "rollout-0"),
        token_of(control_token("the-install-key", "uid-2"), Role.ROLLOUT, "rollout-0"),
        token_of(control_token("another-key", "uid-1"), Role.ROLLOUT, "rollout-0"),
        token_of(CONTROL, Role.ROLLOUT, "rollout-0").replace("rollout-0", "rollout-1"),
        token_of(CONTROL, Role.ROLLOUT, "rollout-0").replace("rollout.", "old-logit."),
        token_of(CONTROL, Role.ROLLOUT, "rollout-0").replace("rollout.", "control."),
        token_of(CONTROL, Role.ROLLOUT, "rollout-0")[:-1],
        "rollout..x",
        "rollout.rollout-0.",
        "control..",
        "..",
        "",
        "rollout." + "x" * 100_000 + ".y",
        CONTROL + "=",
        CONTROL.swapcase(),
        "\udcff\udcfe",
    ],
)
def test_what_is_shown_and_is_nobodys(shown: str) -> None:
    assert identify(CONTROL)(shown) is None
    assert only(token_of(CONTROL, Role.ROLLOUT, "rollout-0"))(shown) is None


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True)


@given(NAMES, NAMES, st.sampled_from([Role.ROLLOUT, Role.OLD_LOGIT]))
def test_a_token_says_whose_it_is_and_nobody_has_anothers(one: str, other: str, role: Role) -> None:
    token = token_of(CONTROL, role, one)
    assert identify(CONTROL)(token) == Caller(role, one)
    assert member_token(role_key(CONTROL, role), role, one) == token
    assert (token_of(CONTROL, role, other) == token) == (one == other)
    assert (only(token)(token_of(CONTROL, role, other)) is not None) == (one == other)


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_different_purposes_never_meet(one: list[str], other: list[str]) -> None:
    assert (derive("key", *one) == derive("key", *other)) == (one == other)


def test_the_same_key_gives_the_same_tokens_for_ever() -> None:
    """A change here locks running pods out after an upgrade of the operator."""
    assert control_token("the-install-key", "uid-1") == "91B_7PCEPkuNL68SoPwX1Dz75kH_RmJbm1FJje8zSiE"
    assert (
        token_of("control", Role.ROLLOUT, "rollout-0")
        == "rollout.rollout-0.n71iBdJkrknx7O2q3DQBWEx5O6mxRK88I_sRQwMJ230"
    )


async def test_a_rollout_obeys_who_shows_its_own_token(learner: tuple[web.Application, str, Board]) -> None:
    own = token_of(CONTROL, Role.ROLLOUT, "rollout-0")
    membership = MagicMock(pause=Board(), flush=Board(), load=Board(), resume=Board())
    runner, port = await serve(control_application(own, CollectorRegistry(), lambda: "", membership), "127.0.0.1", 0)
    body = msgspec.msgpack.encode({"envelope": ENVELOPE, "ttl_seconds": 1.0})
    for token, status in (
        (own, 200),
        (token_of(CONTROL, Role.ROLLOUT, "rollout-1"), 401),
        (role_key(CONTROL, Role.ROLLOUT), 401),
        ("", 401),
    ):
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.post(f"http://127.0.0.1:{port}{routes.PAUSE}", data=body) as answer,
        ):
            assert answer.status == status
    await runner.cleanup()


def test_the_program_writes_a_members_token_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(role_key(CONTROL, Role.ROLLOUT) + "\n")
    command = [sys.executable, "-m", "asyncppo.wire.tokens", "--role", "rollout", "--name", "guess-rollout-3"]
    made = subprocess.run(
        [*command, "--key-file", str(tmp_path / "key"), "--output", str(tmp_path / "token")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    assert (tmp_path / "token").read_text().strip() == token_of(CONTROL, Role.ROLLOUT, "guess-rollout-3")
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o440
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "token"]
    failed = subprocess.run(
        [*command, "--key-file", str(tmp_path / "none"), "--output", str(tmp_path / "token")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 2
    assert "guess-rollout-3" in failed.stderr
