"""The last words of a run: what it came to, also when it failed before it began, and what one should know."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console
from tests.unit.api.builders import document
from tests.unit.local.builders import status

from asyncppo.api.manifest import parse_manifest
from asyncppo.local.ending import tell, write_results
from asyncppo.local.folder import RunFolder
from asyncppo.local.outcome import Outcome
from asyncppo.report.measures import LearnerStatus, Learning, UpdateMetrics


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def told(folder: RunFolder, outcome: Outcome) -> str:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    tell(
        console,
        write_results(parse_manifest(document(), "test"), folder, outcome),
        folder,
        outcome,
        "asyncppo run job.yaml --resume",
    )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def outcome(phase: str, last: LearnerStatus | None) -> Outcome:
    return Outcome(phase=phase, message="the checkpoint is damaged", status=last, rollout_time={}, restarts={})


def test_a_resume_that_fails_at_once_tells_of_the_updates_before(folder: RunFolder) -> None:
    lines = [UpdateMetrics(update=n, version=n, at_seconds=0.0, reward=0.0) for n in (1, 2, 40)]
    folder.metrics_file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    words = told(folder, outcome("Failed", None))
    assert "before the learner answered; 40 updates are done" in words
    assert "0 updates in" not in words
    assert "tokens/s" not in words, "figures nobody measured"
    assert msgspec.json.decode(folder.summary_file.read_bytes())["updates"] == 40


def test_a_first_start_that_fails_has_none(folder: RunFolder) -> None:
    words = told(folder, outcome("Failed", None))
    assert "updates" not in words.splitlines()[1]


def test_notes_are_said_at_the_end(folder: RunFolder) -> None:
    nothing = Learning(updates=120, idle_updates=120, groups=240, zero_variance_groups=240)
    words = told(folder, outcome("Complete", status(notes=["the Linear schedule jumped"], learning=nothing)))
    assert "Note: the Linear schedule jumped" in words
    assert "Note: nothing was learnt from rewards" in words
    summary = msgspec.json.decode(folder.summary_file.read_bytes())
    assert summary["notes"] == ["the Linear schedule jumped"]
    assert summary["learning"]["zeroVarianceGroups"] == 240
