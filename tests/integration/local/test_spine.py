"""The real thing, small: learner, two rollouts and coordinator train; a stop and a kill lose nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncppo.report.measures import Summary
from asyncppo.report.summary import read_summary

LIMIT = 300.0
UPDATES = 6
JOB = {
    "apiVersion": "asyncppo.io/v1alpha1",
    "kind": "AsyncPPOJob",
    "metadata": {"name": "small"},
    "spec": {
        "model": {"builtin": {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 32}},
        "environment": {"type": "GuessNumber", "parameters": {"delaySeconds": 0.01, "delayTail": 1.5}},
        "sampling": {"maxTokens": 1, "contextLength": 32},
        "algorithm": {"updates": UPDATES, "groupSize": 4, "batchGroups": 8},
        "optimizer": {"learningRate": 0.01},
        "oldLogits": {"strategy": "Interruption"},
        "learner": {"threads": 1},
        "rollout": {"replicas": 2, "concurrency": 16},
    },
}


class Run:
    """`asyncppo run` as a process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.output = folder / "out"
        (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from asyncppo.cli import main; sys.exit(main())", "run", "job.yaml",
             "--output", "out", *arguments],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def end(self) -> tuple[int, str]:
        """Exit code and everything said, with the logs when it went wrong."""
        said, _ = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said

    def updates(self) -> int:
        """Updates trained so far."""
        metrics = self.output / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


RUNS: list[Run] = []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts runs in one folder; none outlives the test."""

    def make(*arguments: str) -> Run:
        RUNS.append(Run(tmp_path, *arguments))
        return RUNS[-1]

    yield make
    while RUNS:
        with RUNS.pop().process as process:
            process.kill()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition with a generous limit."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)


def pid_of(role: str, output: Path) -> int | None:
    """The process of a role that works in `output`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"asyncppo_runtime.{role.split('-')[0]}" in words and (role in words or role == "learner"):
                directory = Path(words[words.index("--directory") + 1])
                if (Path(os.readlink(entry / "cwd")) / directory).is_relative_to(output):
                    return int(entry.name)
    return None


def checked(output: Path) -> Summary:
    """The summary, with everything in it that must hold at the end of every run."""
    summary = read_summary(output / "summary.json")
    assert summary.ledger.balanced, summary.ledger
    assert summary.old_logits.exact_coverage == 1.0
    assert summary.old_logits.violations == 0
    assert summary.staleness.max <= summary.staleness_bound
    assert abs(summary.discrepancy.slope) < 1e-5
    return summary


def complete(run: Run) -> Summary:
    """The run's end, which must be a good one."""
    code, said = run.end()
    assert code == 0, said
    summary = checked(run.output)
    assert (summary.phase, summary.updates) == ("Complete", UPDATES)
    assert run.updates() == UPDATES
    assert (run.output / "model" / "config.json").exists()
    assert (run.output / "report.png").read_bytes().startswith(b"\x89PNG")
    return summary


def test_a_small_job_trains_exactly(start: Callable[..., Run]) -> None:
    run = start()
    summary = complete(run)
    assert summary.ledger.trained == UPDATES * 32
    assert summary.syncs.count >= UPDATES - 1
    assert set(summary.time) == {"learner", "rollout-0", "rollout-1"}
    assert summary.restarts == {}
    assert summary.ledger.discarded == {}, "with the action Wait nothing is thrown away"
    listed = json.loads(show(run.output, "--limit", "5"))
    assert listed["received"] == summary.ledger.received
    one: dict[str, Any] = json.loads(show(run.output, "--trajectory", str(listed["trajectories"][-1]["id"])))
    assert all(token["oldLogprob"] is not None for token in one["tokens"] if token["mask"])


def test_ctrl_c_loses_nothing_and_resume_goes_on(start: Callable[..., Run]) -> None:
    run = start()
    until(lambda: run.updates() >= 2, "two updates")
    run.process.send_signal(signal.SIGINT)
    code, said = run.end()
    assert code == 130, said
    assert "--resume" in said
    stopped = checked(run.output)
    assert stopped.phase == "Stopped"
    assert stopped.ledger.in_flight == 0
    summary = complete(start("--resume"))
    assert summary.ledger.leased >= stopped.ledger.leased


def test_a_killed_rollout_costs_its_episodes_and_nothing_else(start: Callable[..., Run]) -> None:
    run = start()
    until(lambda: run.updates() >= 1, "an update")
    victim = pid_of("rollout-0", run.output)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    summary = complete(run)
    assert summary.restarts == {"rollout-0": 1}


def test_a_killed_learner_goes_on_from_its_checkpoint(start: Callable[..., Run]) -> None:
    run = start()
    until(lambda: run.updates() >= 2, "two updates")
    victim = pid_of("learner", run.output)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert complete(run).restarts == {"learner": 1}


def test_a_killed_runner_can_be_resumed(start: Callable[..., Run]) -> None:
    run = start()
    until(lambda: run.updates() >= 2, "two updates")
    run.process.kill()
    run.end()
    until(lambda: pid_of("learner", run.output) is None and pid_of("rollout-0", run.output) is None, "all are gone")
    complete(start("--resume"))


def show(output: Path, *arguments: str) -> str:
    """`asyncppo show --json`."""
    command = [sys.executable, "-c", "import sys; from asyncppo.cli import main; sys.exit(main())", "show", str(output)]
    return subprocess.run([*command, "--json", *arguments], capture_output=True, text=True, check=True).stdout
