"""`asyncppo run` and `asyncppo show` as commands: bad input ends with exit 2, says what to do, and starts and changes nothing."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.integration.local.drive import make_job

from asyncppo.local.folder import RunFolder, claim

MANIFEST = {
    "apiVersion": "asyncppo.io/v1alpha1",
    "kind": "AsyncPPOJob",
    "metadata": {"name": "fake"},
    "spec": {
        "model": {"builtin": {}},
        "environment": {"type": "GuessNumber"},
        "algorithm": {"updates": 20},
        "oldLogits": {"strategy": "Interruption"},
    },
}


def asyncppo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, run in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from asyncppo.cli import main; sys.exit(main())", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def manifest(folder: Path, **spec: object) -> None:
    """job.yaml in `folder`."""
    document = {**MANIFEST, "spec": {**MANIFEST["spec"], **spec}}  # type: ignore[dict-item]
    (folder / "job.yaml").write_text(yaml.safe_dump(document))


def another_jobs_run(folder: Path) -> None:
    (folder / "taken").mkdir()
    claim(RunFolder(folder / "taken"), make_job({"name": "other"}), None)


def an_unfinished_run(folder: Path) -> None:
    (folder / "taken").mkdir()
    claim(RunFolder(folder / "taken"), make_job({}), None)


def foreign_files(folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.tex").write_text("precious")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spec", "before", "arguments", "message"),
    [
        ({}, nothing, ["none.yaml"], "none.yaml: cannot be read"),
        ({"surprise": 1}, nothing, ["job.yaml"], "spec.surprise: unknown field"),
        ({"oldLogits": {"strategy": "interruption"}}, nothing, ["job.yaml"], "did you mean Interruption?"),
        ({"model": {"pretrained": "./none"}}, nothing, ["job.yaml"], "spec.model.pretrained: ./none does not exist"),
        ({"suspend": True}, nothing, ["job.yaml"], "spec.suspend"),
        ({"rollout": {"replicas": 0}}, nothing, ["job.yaml"], "spec.rollout.replicas"),
        ({}, nothing, ["job.yaml", "--updates", "0"], "spec.algorithm.updates: found 0"),
        ({}, nothing, ["job.yaml", "--seed", "-1"], "spec.seed: found -1"),
        ({}, nothing, ["job.yaml", "--updates", "many"], "invalid int value: 'many'"),
        ({}, nothing, ["job.yaml", "--port", "70000"], "--port 70000"),
        ({}, nothing, ["job.yaml", "--resume"], "holds no run to resume"),
        ({}, another_jobs_run, ["job.yaml", "--output", "taken"], "run of another job, `other`"),
        ({}, another_jobs_run, ["job.yaml", "--output", "taken", "--resume"], "run of another job, `other`"),
        ({}, an_unfinished_run, ["job.yaml", "--output", "taken"], "add --resume to go on with it"),
        ({}, an_unfinished_run, ["job.yaml", "--output", "taken", "--resume", "--seed", "9"], "was 0, now 9"),
        ({}, foreign_files, ["job.yaml", "--output", "taken"], "holds files that are not a run's"),
        ({}, nothing, ["job.yaml", "--output", "job.yaml"], "is a file"),
    ],
)
def test_bad_input_starts_and_changes_nothing(
    tmp_path: Path, spec: dict[str, object], before: Callable[[Path], None], arguments: list[str], message: str
) -> None:
    manifest(tmp_path, **spec)
    before(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    ended = asyncppo(tmp_path, "run", *arguments)
    assert message in ended.stderr
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_a_busy_port_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    manifest(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = asyncppo(tmp_path, "run", "job.yaml", "--port", port)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"--port {port} on 127.0.0.1 cannot be had" in ended.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("before", "arguments", "message"),
    [
        (nothing, ["none"], "holds no run (no job.json)"),
        (foreign_files, ["taken"], "holds no run (no job.json)"),
        (an_unfinished_run, ["taken"], "holds no run (no ledger.db)"),
        (nothing, ["."], "holds no run (no job.json)"),
        (nothing, [".", "--limit", "0"], "is not a whole number from 1 on"),
        (nothing, [".", "--trajectory", "first"], "invalid int value: 'first'"),
    ],
)
def test_show_without_anything_to_read(
    tmp_path: Path, before: Callable[[Path], None], arguments: list[str], message: str
) -> None:
    before(tmp_path)
    ended = asyncppo(tmp_path, "show", *arguments)
    assert message in ended.stderr
    assert (ended.returncode, ended.stdout) == (2, "")


def test_show_on_a_ledger_that_is_none(tmp_path: Path) -> None:
    an_unfinished_run(tmp_path)
    (tmp_path / "taken" / "ledger.db").write_text(json.dumps({"not": "a ledger"}))
    ended = asyncppo(tmp_path, "show", "taken")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "taken" in ended.stderr
    assert "Traceback" not in ended.stderr
