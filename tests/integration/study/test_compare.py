"""`asyncppo compare` as a process: a study that is killed goes on with what is there and ends with the same table; bad input is exit 2."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.study.builders import job

from asyncppo.api.manifest import dump_manifest

LIMIT = 300.0
CODE = "import sys; from asyncppo.cli import main; sys.exit(main())"
TIMES = ("wall", "learner", "stall")


def command(tmp_path: Path, *options: str) -> list[str]:
    manifest = tmp_path / "job.json"
    manifest.write_text(dump_manifest(job(updates=6)))
    return [sys.executable, "-c", CODE, "compare", str(manifest), *options]


def ended(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(tmp_path, *options), cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def figures(folder: Path) -> dict[str, Any]:
    """Every cell's figures but for seconds."""
    found = {}
    for path in sorted((folder / "cells").glob("*.json")):
        result = json.loads(path.read_text())
        result["cost"] = {name: value for name, value in result["cost"].items() if name not in TIMES}
        found[path.name] = result
    return found


def test_a_killed_study_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    options = ("--strategies", "Interruption,EWMA", "--seeds", "1")
    whole = ended(tmp_path, *options, "--output", "whole")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.index("time budget") < whole.stdout.index("done, 1 left")
    assert {"study.txt", "study.png"} <= {path.name for path in (tmp_path / "whole").iterdir()}

    cells = tmp_path / "cut" / "cells"
    process = subprocess.Popen(
        command(tmp_path, *options, "--output", "cut"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + LIMIT
    while not any(cells.glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path.name: path.read_bytes() for path in cells.glob("*.json")}
    assert len(kept) == 1

    resumed = ended(tmp_path, *options, "--output", "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 cells, 1 to train" in resumed.stdout
    assert all((cells / name).read_bytes() == content for name, content in kept.items())
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--strategies", "Interruption,Snapshott"), "did you mean Snapshot?"),
        (("--strategies", "Interruption"), "at least two"),
        (("--strategies", "Interruption,EWMA", "--sweep", "staleness.max=1"), "unknown field max"),
        (("--strategies", "Interruption,EWMA", "--sweep", "staleness.maxVersions=-3"), "staleness.maxVersions"),
        (("--strategies", "Interruption,EWMA", "--output", "job.json"), "is a file"),
    ],
)
def test_bad_input_is_exit_2_and_makes_nothing(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    result = ended(tmp_path, *options)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
