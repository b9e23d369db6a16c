"""Runs `asyncppo` on a case's folder as a user would, in a process of its own, and says what came of it.

Owns the command, its time limit and what is kept of it. Does not own what a case expects: the tests beside it do.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = ("images/shared", "images/runtime", "operator")
LIMIT_SECONDS = 240.0  # for a machine that does other work too; a case takes ten seconds on a quiet one


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command came to: its exit code, what it printed (both streams), the run's folder, and whether it had to be stopped."""

    code: int
    output: str
    folder: Path
    timed_out: bool = False

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json."""
        loaded: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return loaded

    def logs(self) -> str:
        """What every role printed, one file after the other."""
        return "\n".join(file.read_text(errors="replace") for file in sorted((self.folder / "logs").glob("*.log")))


def asyncppo(
    *arguments: str, folder: Path, cwd: Path, limit_seconds: float = LIMIT_SECONDS, **environment: str
) -> Outcome:
    """Runs `asyncppo ARGUMENTS` in `cwd`. Past the limit it gets what Ctrl-C sends, then SIGKILL with all its children."""
    path = os.pathsep.join(str(ROOT / source) for source in SOURCES)
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from asyncppo.cli import main; sys.exit(main())", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    timed_out = False
    try:
        output, _ = process.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    return Outcome(process.returncode, output, folder, timed_out)


def run_case(
    name: str, folder: Path, *arguments: str, limit_seconds: float = LIMIT_SECONDS, **environment: str
) -> Outcome:
    """`asyncppo run job.yaml --output FOLDER ARGUMENTS` in tests/cases/NAME."""
    return asyncppo(
        *("run", "job.yaml", "--output", str(folder)),
        *arguments,
        folder=folder,
        cwd=HERE / name,
        limit_seconds=limit_seconds,
        **environment,
    )
