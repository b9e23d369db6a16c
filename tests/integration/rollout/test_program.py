"""The real program as a process: its command line, its errors, its clean stop."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.rollout.learner_double import TOKEN, UID, LearnerDouble
from tests.integration.rollout.test_worker import tensors
from tests.unit.rollout.builders import job_spec

from asyncppo.api.job import AsyncPPOJob
from asyncppo.wire.membership import MemberState
from asyncppo_runtime.rollout.__main__ import main

NAME = "rollout-0"


def arguments(folder: Path, learner: str, **more: str) -> list[str]:
    """A valid command line in `folder`; `more` replaces options."""
    options = {
        "job": str(folder / "job.json"),
        "learner": learner,
        "listen": "127.0.0.1:0",
        "name": NAME,
        "token-file": str(folder / "token"),
        "directory": str(folder / "pulled"),
    } | {key.replace("_", "-"): value for key, value in more.items()}
    return [item for key, value in options.items() for item in (f"--{key}", value)]


def write_job(folder: Path, uid: str = UID, **parts: Any) -> None:
    """The manifest and the token."""
    job = AsyncPPOJob.model_validate(
        {
            "apiVersion": "asyncppo.io/v1alpha1",
            "kind": "AsyncPPOJob",
            "metadata": {"name": "j", "uid": uid},
            "spec": job_spec(**parts),
        }
    )
    (folder / "job.json").write_text(json.dumps(job.model_dump(mode="json", by_alias=True, exclude_none=True)))
    (folder / "token").write_text(TOKEN + "\n")


@asynccontextmanager
async def program(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m asyncppo_runtime.rollout` as a process; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "asyncppo_runtime.rollout",
        *command,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Exit status and what it said."""
    async with asyncio.timeout(120):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_sigterm_hands_everything_back(tmp_path: Path) -> None:
    write_job(tmp_path, environment={"type": "GuessNumber", "parameters": {"delaySeconds": 0.01, "delayTail": 1.5}})
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with program(*arguments(tmp_path, learner.url)) as process:
            await learner.until(lambda: len(learner.received) >= 10)
            process.send_signal(signal.SIGTERM)
            status, said = await ended(process)
        assert status == 0, said
        assert learner.members[NAME].state is MemberState.LEFT
        assert not learner.in_flight
        assert learner.returned
        assert "Traceback" not in said
        assert TOKEN not in said


async def test_sigterm_while_it_waits_for_a_learner_ends_it_at_once(tmp_path: Path) -> None:
    write_job(tmp_path)
    async with program(*arguments(tmp_path, "http://127.0.0.1:9", grace_seconds="60")) as process:
        assert process.stderr is not None
        async with asyncio.timeout(120):
            while b"waiting for the learner" not in await process.stderr.readline():
                pass
        process.send_signal(signal.SIGTERM)
        status, said = await ended(process)
    assert status == 0, said


async def test_a_learner_of_another_job_refuses_it_for_good(tmp_path: Path) -> None:
    write_job(tmp_path, uid="another")
    async with LearnerDouble(tmp_path / "store") as learner, program(*arguments(tmp_path, learner.url)) as process:
        status, said = await ended(process)
    assert status == 3
    assert "OtherJob" in said
    assert "Traceback" not in said


async def test_a_wrong_token_is_refused_for_good(tmp_path: Path) -> None:
    write_job(tmp_path)
    (tmp_path / "token").write_text("wrong")
    async with LearnerDouble(tmp_path / "store") as learner, program(*arguments(tmp_path, learner.url)) as process:
        status, said = await ended(process)
    assert status == 3
    assert "Unauthorized" in said


@pytest.mark.parametrize(
    ("parts", "options", "says"),
    [
        ({"model": {"pretrained": "/no/such/model"}}, {}, "spec.model.pretrained"),
        ({"environment": {"type": "Custom", "entrypoint": "no.such:Thing"}}, {}, "spec.environment.entrypoint"),
        ({"environment": {"type": "GuessNumber", "parameters": {"numbers": 1}}}, {}, "numbers"),
        ({}, {"listen": "nonsense"}, "--listen"),
        ({}, {"token_file": "/no/such/token"}, "--token-file"),
        ({}, {"job": "/no/such/job.yaml"}, "/no/such/job.yaml"),
    ],
)
def test_bad_input_is_said_and_ends_with_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, parts: dict[str, Any], options: dict[str, str], says: str
) -> None:
    write_job(tmp_path, **parts)
    assert main(arguments(tmp_path, "http://127.0.0.1:9", **options)) == 2
    assert says in caplog.text
    assert "Traceback" not in caplog.text


def test_a_port_in_use_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_job(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(arguments(tmp_path, "http://127.0.0.1:9", listen=listen)) == 2
    assert "--listen" in caplog.text


def test_a_kv_cache_too_small_for_one_sequence_names_the_field(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = {"engine": {"kvCacheBytes": 1 << 20}}
    write_job(tmp_path, rollout=engine, sampling={"contextLength": 8192})
    assert main(arguments(tmp_path, "http://127.0.0.1:9")) == 2
    assert "spec.rollout.engine.kvCacheBytes" in caplog.text
