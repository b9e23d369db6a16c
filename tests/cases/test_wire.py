"""What hostile or broken programs send to a running job: it goes on, completes and resumes, and says what it refused."""

import asyncio
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.cases.drive import HERE, LIMIT_SECONDS, ROOT, SOURCES, run_case

from asyncppo.report.measures import LearnerStatus
from asyncppo.wire import routes
from asyncppo.wire.server import application, serve
from asyncppo.wire.tokens import Role, token_of

pytestmark = pytest.mark.cases
DESCRIPTORS = 256
HALF_SENT = 250
EVIL = "rollout-9"


@pytest.fixture
def running(tmp_path: Path) -> Iterator["Job"]:
    """The job, begun with few descriptors, and surely ended."""
    job = Job(tmp_path)
    try:
        yield job
    finally:
        job.end()


class Job:
    """A local run under way in `folder`; its environment is slow until `finish`, so that its updates outlast the attack."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "run"
        self.go = directory / "go"
        path = os.pathsep.join(str(ROOT / source) for source in SOURCES)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", "import sys; from asyncppo.cli import main; sys.exit(main())"),
                *("run", "job.yaml", "--output", str(self.folder)),
            ],
            cwd=HERE / "hostile-wire",
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "GO": str(self.go)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
        )

    @property
    def control(self) -> str:
        return (self.folder / "token").read_text().strip()

    @property
    def url(self) -> str:
        return (self.folder / "learner.url").read_text().strip()

    @property
    def learner_log(self) -> str:
        return (self.folder / "logs" / "learner.log").read_text(errors="replace")

    def alive(self) -> bool:
        return self._process.poll() is None

    def finish(self) -> tuple[int, str]:
        """Let the environment be quick; the run's exit code and words."""
        self.go.touch()
        output, _ = self._process.communicate(timeout=LIMIT_SECONDS)
        return self._process.returncode, output

    def end(self) -> None:
        if self.alive():
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()


class Attacker:
    """Calls the learner with a token."""

    def __init__(self, session: aiohttp.ClientSession, job: Job, token: str) -> None:
        self._session = session
        self.job = job
        self._token = token

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Status and body. A body that is not bytes goes as msgpack."""
        data = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
        own = {"Authorization": f"Bearer {self._token}", **headers}
        timeout = aiohttp.ClientTimeout(total=30)
        async with self._session.request(
            method,
            self.job.url + path,
            data=io.BytesIO(data) if method == "POST" else None,
            headers=own,
            timeout=timeout,
        ) as answer:
            return answer.status, await answer.read()

    async def status(self) -> LearnerStatus:
        code, body = await self.call("GET", routes.STATUS)
        assert code == 200
        return msgspec.json.decode(body, type=LearnerStatus)

    async def until_updates(self, count: int) -> None:
        """Wait until the job has gone on so far."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while (await self.status()).update < count:
            assert self.job.alive()
            assert time.monotonic() < deadline, await self.status()
            await asyncio.sleep(0.2)


async def begun(job: Job) -> None:
    """Wait for the learner."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (job.folder / "learner.url").exists():
        assert job.alive()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def half_sent(job: Job, control: Attacker) -> None:
    """Connections that send a line and nothing more; the job trains on and its log stays small."""
    host, port = job.url.removeprefix("http://").split(":")
    before, updates = len(job.learner_log), (await control.status()).update
    sockets = []
    for _ in range(HALF_SENT):
        one = socket.create_connection((host, int(port)), timeout=30)
        one.sendall(b"GET /metrics HTTP/1.1\r\n")
        sockets.append(one)
    await control.until_updates(updates + 1)
    for one in sockets:
        one.close()
    assert len(job.learner_log) - before < 20_000


async def what_a_rollout_may_not(member: Attacker, uid: str) -> None:
    """Everything but being itself."""
    other = {"job_uid": uid, "epoch": 0, "target": "rollout-0", "incarnation": 1}
    seal = {
        "job_uid": uid,
        "coordinator": "local",
        "epoch": 1,
        "version": 0,
        "members": [],
        "manifests": [],
        "fenced": [],
    }
    for method, path, body in (
        ("POST", routes.STOP, {}),
        ("POST", routes.SYNC_SEAL, seal),
        ("POST", routes.SYNC_BEGIN, {"job_uid": uid, "coordinator": "local", "expected_epoch": 0}),
        ("POST", routes.DRAIN, other),
        ("GET", routes.STATUS, None),
        ("GET", routes.SYNC, None),
        ("POST", routes.JOIN, {"job_uid": uid, "name": "rollout-0", "url": "http://127.0.0.1:9"}),
        ("POST", routes.HEARTBEAT, {"envelope": other, "version": 0, "lease_ids": []}),
        ("POST", routes.LEAVE, {"envelope": other}),
        ("POST", routes.TRAJECTORIES, {"envelope": other, "trajectories": []}),
    ):
        assert (path, (await member.call(method, path, body))[0]) == (path, 403)


async def messages_that_are_none(member: Attacker, uid: str) -> None:
    """Names, urls, numbers, nests and sizes: each refused with the reason."""
    own = {"job_uid": uid, "epoch": 0, "target": EVIL, "incarnation": 1}
    ready = {"envelope": own, "version": 0, "weights_hash": ""}
    for path, body, headers, status, words in (
        (routes.JOIN, {"job_uid": uid, "name": EVIL, "url": "http://a..b"}, {}, 400, b"http://HOST:PORT"),
        (routes.JOIN, {"job_uid": uid, "name": EVIL, "url": "//x"}, {}, 400, b"http://HOST:PORT"),
        (routes.JOIN, {"job_uid": uid, "name": "x" * 5_000_000, "url": "http://127.0.0.1:9"}, {}, 413, b"at most"),
        (routes.JOIN, {"job_uid": uid, "name": "x" * 5_000, "url": "http://127.0.0.1:9"}, {}, 400, b"name"),
        (routes.READY, {**ready, "version": 2**63}, {}, 400, b"version"),
        (routes.READY, b"\x81\xa1x" * 200_000 + b"\x01", {}, 400, b"BadMessage"),
        (routes.READY, zlib.compress(b"\0" * (1 << 26)), {"Content-Encoding": "deflate"}, 415, b"compressed"),
    ):
        answered = await member.call("POST", path, body, **headers)
        assert (path, answered[0], words in answered[1]) == (path, status, True)


async def joined(member: Attacker, uid: str, url: str) -> tuple[int, bytes, dict[str, Any]]:
    """Join at `url` and say ready, as soon as no sync runs: the answer to that, and the envelope."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        assert time.monotonic() < deadline
        code, body = await member.call("POST", routes.JOIN, {"job_uid": uid, "name": EVIL, "url": url})
        assert code == 200, body
        answer = msgspec.msgpack.decode(body)
        if answer["record"] is None:
            await asyncio.sleep(0.1)
            continue
        own = {"job_uid": uid, "epoch": answer["epoch"], "target": EVIL, "incarnation": answer["incarnation"]}
        record = answer["record"]
        ready = {"envelope": own, "version": record["version"], "weights_hash": record["published_hash"]}
        code, body = await member.call("POST", routes.READY, ready)
        if code == 200 and msgspec.msgpack.decode(body)["state"] != "Ready":
            continue  # a sync came in between
        return code, body, {**ready, "version": record["version"]}


async def poisoned(member: Attacker, uid: str, url: str) -> None:
    """With a lease of its own: trajectories that could be neither scored nor trained."""
    deadline = time.monotonic() + LIMIT_SECONDS
    left = ["id", "logprob", "length", "many"]
    while left:
        assert time.monotonic() < deadline, left
        code, body, ready = await joined(member, uid, url)
        assert code == 200, body
        own, version = ready["envelope"], ready["version"]
        code, body = await member.call("POST", routes.LEASES, {"envelope": own, "count": 1, "version": version})
        leases = msgspec.msgpack.decode(body).get("leases") if code == 200 else None
        if not leases:
            await asyncio.sleep(0.2)  # at capacity, or fenced by a sync that it did not answer
            continue
        ids, logprobs = [1, 2, 1, 2], [-0.5, -0.5]
        if left[0] == "id":
            ids[0] = 2147483647
        if left[0] == "logprob":
            logprobs[0] = -1e300
        if left[0] == "length":
            ids = [1] * 1000
        if left[0] == "many":
            ids = [1] * 30_000_000
        segment = {
            "index": 0,
            "start": 2,
            "end": 4,
            "version": version,
            "weights_hash": ready["weights_hash"],
            "logprobs": logprobs,
        }
        one = {
            "lease_id": leases[0]["lease_id"],
            "group_id": leases[0]["group_id"],
            "token_ids": ids,
            "segments": [segment],
        }
        upload = {"envelope": own, "trajectories": [{**one, "finished": True, "end_reason": "done"}]}
        code, body = await member.call("POST", routes.TRAJECTORIES, upload)
        if code == 409:
            continue
        if left[0] == "many":
            assert (code, b"at most" in body) == (413, True), body
            # Nobody judged that one: without this its group, and the next batch, waits a minute for the lease to expire.
            given = {"envelope": own, "lease_ids": [leases[0]["lease_id"]]}
            code, body = await member.call("POST", routes.GIVE_BACK, given)
            assert code in (200, 409), body  # 409: a sync has fenced it, which ends its leases too
        else:
            assert code == 200, body
            reply = msgspec.msgpack.decode(body)
            assert (reply["accepted"], len(reply["refused"])) == ([], 1), (left[0], reply)
            assert reply["refused"][0]["reason"] in ("token_out_of_vocabulary", "malformed", "context_exceeded")
        left.pop(0)


async def attack(job: Job) -> None:
    """One after the other, while the job trains."""
    await begun(job)
    # it answers /healthz, and refuses every command of the coordinator: fenced at its first sync
    runner, port = await serve(application("a token of its own", CollectorRegistry(), lambda: ""), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}"
    uid = msgspec.json.decode((job.folder / "job.json").read_bytes())["metadata"]["uid"]
    try:
        async with aiohttp.ClientSession() as session:
            control = Attacker(session, job, job.control)
            member = Attacker(session, job, token_of(job.control, Role.ROLLOUT, EVIL))
            await what_a_rollout_may_not(member, uid)
            await messages_that_are_none(member, uid)
            code, body, _ = await joined(member, uid, "http://127.0.0.1:9")
            assert (code, b"NotReached" in body) == (409, True)
            await poisoned(member, uid, url)
            await half_sent(job, control)
            assert EVIL in [view.name for view in (await control.status()).members]
    finally:
        await runner.cleanup()


def test_a_job_goes_on_whatever_is_sent_to_it_and_resumes(running: Job) -> None:
    asyncio.run(attack(running))
    code, output = running.finish()
    assert code == 0, output
    log = running.learner_log
    assert "Traceback" not in log
    assert len(log) < 100_000
    assert running.control not in log + output
    more = run_case("hostile-wire", running.folder, "--resume", "--updates", "18", GO=str(running.go))
    assert more.code == 0, more.output
    assert more.summary["updates"] == 18
