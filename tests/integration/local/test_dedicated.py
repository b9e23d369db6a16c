"""Dedicated with real processes: a worker that dies, one that hangs, and none that answers."""

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

from asyncppo.programs import MODULE
from asyncppo.report.history import read_history
from asyncppo.report.measures import Summary
from asyncppo.report.summary import read_summary

LIMIT = 400.0
UPDATES = 6


def manifest(patience: float = 120.0, **old_logits: Any) -> dict[str, Any]:
    """A small job whose engine computes in another precision: the published weights are not the train-side ones."""
    return {
        "apiVersion": "asyncppo.io/v1alpha1",
        "kind": "AsyncPPOJob",
        "metadata": {"name": "dedicated"},
        "spec": {
            "model": {"builtin": {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 32}},
            "environment": {"type": "GuessNumber"},
            "sampling": {"maxTokens": 1, "contextLength": 32},
            "algorithm": {"updates": UPDATES, "groupSize": 4, "batchGroups": 4},
            "optimizer": {"learningRate": 0.03},
            "oldLogits": {"strategy": "Dedicated", **old_logits},
            "learner": {"threads": 1},
            "oldLogit": {"replicas": 1, "unavailableAfterSeconds": patience},
            "rollout": {"replicas": 1, "concurrency": 8, "engine": {"precision": "BFloat16"}},
        },
    }


class Run:
    """`asyncppo run` as a process."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.output = folder / "out"
        (folder / "job.yaml").write_text(yaml.safe_dump(job))
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from asyncppo.cli import main; sys.exit(main())", "run", "job.yaml",
             "--output", "out"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def updates(self) -> int:
        """Updates trained so far."""
        metrics = self.output / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def end(self) -> tuple[int, str]:
        """Exit code and everything said."""
        said, _ = self.process.communicate(timeout=LIMIT)
        log = self.output / "logs" / "learner.log"
        return self.process.returncode, said + (log.read_text() if log.exists() else "")

    def process_of(self, module: str) -> int | None:
        """The process of a role."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    here = Path(os.readlink(entry / "cwd"))
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
                # the program itself, not the leash that starts it
                if words[: len(MODULE) + 1] == [*MODULE, f"asyncppo_runtime.{module}"] and here.samefile(
                    self.output.parent
                ):
                    return int(entry.name)
        return None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Run]]:
    """Starts runs; none outlives the test."""
    runs: list[Run] = []

    def make(job: dict[str, Any]) -> Run:
        runs.append(Run(tmp_path, job))
        return runs[-1]

    yield make
    for run in runs:
        with run.process as process:
            process.kill()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition with a generous limit."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)


def checked(run: Run) -> Summary:
    """A good end: everything trained, every token verified."""
    code, said = run.end()
    assert code == 0, said
    summary = read_summary(run.output / "summary.json")
    assert (summary.phase, summary.updates) == ("Complete", UPDATES)
    assert summary.ledger.balanced
    assert summary.old_logits.exact_coverage == 1.0
    assert (summary.old_logits.violations, summary.old_logits.fallbacks) == (0, 0)
    return summary


def test_a_killed_worker_comes_back_and_nothing_is_lost(start: Callable[[dict[str, Any]], Run]) -> None:
    run = start(manifest())
    until(lambda: run.updates() >= 1, "an update")
    victim = run.process_of("old_logit")
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert checked(run).restarts == {"old-logit-0": 1}


def test_a_killed_learner_finds_its_work_again_in_the_ledger(start: Callable[[dict[str, Any]], Run]) -> None:
    run = start(manifest())
    until(lambda: run.updates() >= 2, "two updates")
    victim = run.process_of("learner")
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert checked(run).restarts == {"learner": 1}


def test_without_an_answering_worker_the_job_fails_with_the_reason(start: Callable[[dict[str, Any]], Run]) -> None:
    run = start(manifest(patience=2.0))
    until(lambda: run.updates() >= 1, "an update")
    victim = run.process_of("old_logit")
    assert victim is not None
    os.kill(victim, signal.SIGSTOP)
    code, said = run.end()
    assert code == 3, said
    summary = read_summary(run.output / "summary.json")
    assert summary.phase == "Failed"
    assert "no old-logit worker can be counted on" in summary.message


def test_fallback_goes_on_without_workers_and_says_so(start: Callable[[dict[str, Any]], Run]) -> None:
    run = start(manifest(patience=2.0, onUnavailable="Fallback"))
    until(lambda: run.updates() >= 1, "an update")
    victim = run.process_of("old_logit")
    assert victim is not None
    os.kill(victim, signal.SIGSTOP)
    code, said = run.end()
    assert code == 0, said
    summary = read_summary(run.output / "summary.json")
    assert summary.updates == UPDATES
    assert summary.ledger.balanced
    assert summary.old_logits.fallbacks == summary.ledger.tokens.fallback > 0
    assert 0.0 < summary.old_logits.exact_coverage < 1.0


def test_discard_drops_what_has_no_exact_value_and_trains_the_rest(start: Callable[[dict[str, Any]], Run]) -> None:
    run = start(manifest(patience=2.0, onUnavailable="Discard"))
    until(lambda: run.updates() >= 1, "an update")
    victim = run.process_of("old_logit")
    assert victim is not None
    os.kill(victim, signal.SIGSTOP)
    log = run.output / "logs" / "learner.log"
    until(lambda: "are discarded as version_unavailable" in log.read_text(), "segments without an exact value")
    os.kill(victim, signal.SIGKILL)  # another is started, and counts once it has answered for a while
    code, said = run.end()
    assert code == 0, said
    summary = read_summary(run.output / "summary.json")
    assert (summary.phase, summary.updates) == ("Complete", UPDATES)
    assert summary.ledger.balanced
    dropped = summary.ledger.tokens.discarded["version_unavailable"]
    assert dropped > 0
    # what was dropped counts as not covered: dropping does not make a run exact
    assert 0.0 < summary.old_logits.exact_coverage < 1.0
    assert (summary.old_logits.violations, summary.old_logits.fallbacks) == (0, 0)
    assert all(update.exact_coverage == 1.0 for update in read_history(run.output / "metrics.jsonl"))
