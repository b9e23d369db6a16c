"""What a stop says: that a checkpoint is saved only if the learner had heard of the stop, and nothing of urls and sockets."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.local.builders import job, status

from asyncppo.errors import UnreachableError
from asyncppo.local import runner
from asyncppo.local.folder import RunFolder
from asyncppo.local.outcome import Outcome
from asyncppo.report.measures import LearnerStatus

NO_ANSWER = UnreachableError("POST http://127.0.0.1:1/v1/stop: Cannot connect to host 127.0.0.1:1 ssl:default")


class Stage:
    """Roles, feed and screen of a run whose learner ends with `exit_status` when it is stopped."""

    def __init__(self, folder: Path, exit_status: int | None, seen: LearnerStatus | None) -> None:
        self.notes: list[str] = []
        supervisor = SimpleNamespace(
            stop=self.nothing, exit_status=lambda role: exit_status, alive=lambda role: 0.0, restarts_by_role={}
        )
        feed = SimpleNamespace(
            status=seen,
            poll=self.nothing,
            history=SimpleNamespace(follow=lambda: None),
            rollout_time=lambda alive, concurrency: {},
        )
        run = SimpleNamespace(
            job=job(),
            folder=RunFolder(folder),
            patience=runner.Patience(),
            addresses=SimpleNamespace(learner_url="http://127.0.0.1:1"),
        )
        screen = SimpleNamespace(note=self.notes.append)
        stops = SimpleNamespace(second=asyncio.Event())
        parts: list[Any] = [run, supervisor, feed, None, screen, stops]
        self.course = runner._Course(*parts)

    async def nothing(self, *_: object) -> None:
        pass

    async def stop(self) -> Outcome:
        return await self.course._stop_cleanly(self.course._outcome("Stopped", "stopped"))


@pytest.mark.parametrize(
    ("exit_status", "seen", "answers", "words", "note"),
    [
        (0, status(), True, "stopped; a checkpoint is saved", ""),
        (0, None, False, "stopped before the learner could save", "The learner has not begun to serve; the ledger"),
        (0, status(), False, "stopped before the learner could save", "The learner does not answer; the ledger"),
        (-9, status(), True, "stopped before the learner could save", ""),
        (None, None, False, "stopped before the learner could save", "The learner has not begun to serve; the ledger"),
    ],
)
async def test_a_stop_says_what_is_known(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exit_status: int | None,
    seen: LearnerStatus | None,
    answers: bool,
    words: str,
    note: str,
) -> None:
    async def request_stop(*_: object, timeout: float) -> None:
        if not answers:
            raise NO_ANSWER

    monkeypatch.setattr(runner, "request_stop", request_stop)
    stage = Stage(tmp_path, exit_status, seen)
    outcome = await stage.stop()
    assert outcome.message.startswith(words)
    assert [one.startswith(note) for one in stage.notes[1:]] == ([True] if note else [])
    assert not any("http" in text or "ssl" in text for text in (outcome.message, *stage.notes))
