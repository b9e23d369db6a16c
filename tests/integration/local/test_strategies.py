"""Each strategy trains a small job with real processes: the exact ones verify every token, the others say that they are not exact."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from asyncppo.report.measures import Summary
from asyncppo.report.summary import read_summary

UPDATES = 4
LIMIT = 400.0
JOB: dict[str, Any] = {
    "apiVersion": "asyncppo.io/v1alpha1",
    "kind": "AsyncPPOJob",
    "metadata": {"name": "strategies"},
    "spec": {
        "model": {"builtin": {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 32}},
        "environment": {"type": "GuessNumber"},
        "sampling": {"maxTokens": 1, "contextLength": 32},
        "algorithm": {"updates": UPDATES, "groupSize": 4, "batchGroups": 4},
        "optimizer": {"learningRate": 0.03},
        "learner": {"threads": 1},
        "rollout": {"replicas": 1, "concurrency": 8},
    },
}
EXACT = {
    "Overlapped": {"strategy": "Interruption", "scoring": "Overlapped"},
    "SnapshotDisk": {"strategy": "Snapshot", "snapshot": {"medium": "Disk"}},
    "SnapshotMemory": {"strategy": "Snapshot", "snapshot": {"medium": "Memory"}},
    "Dedicated": {"strategy": "Dedicated"},
}
INEXACT = {name: {"strategy": name} for name in ("EWMA", "LogLinear", "Linear", "Recompute", "Rollout")}


def trained(job: dict[str, Any], tmp_path: Path) -> Summary:
    """The summary of a run that must end well."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    code = "import sys; from asyncppo.cli import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code, "run", "job.yaml", "--output", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    log = tmp_path / "out" / "logs" / "learner.log"
    assert ended.returncode == 0, ended.stdout + ended.stderr + (log.read_text() if log.exists() else "")
    summary = read_summary(tmp_path / "out" / "summary.json")
    assert (summary.phase, summary.updates) == ("Complete", UPDATES)
    assert summary.ledger.balanced
    assert summary.ledger.trained == UPDATES * 16
    return summary


@pytest.mark.parametrize("name", [*EXACT, *INEXACT])
def test_a_small_job_trains(name: str, tmp_path: Path) -> None:
    job = copy.deepcopy(JOB)
    job["spec"]["oldLogits"] = (EXACT | INEXACT)[name]
    if name == "Dedicated":
        job["spec"]["oldLogit"] = {"replicas": 2}
    summary = trained(job, tmp_path)
    assert summary.exact == (name in EXACT)
    assert summary.old_logits.violations == 0
    if name in EXACT:
        assert summary.old_logits.exact_coverage == 1.0
        assert abs(summary.discrepancy.slope) < 1e-5
    else:
        assert summary.old_logits.exact_coverage == 0.0, "a proxy is verified against nothing"
    (line, *_) = (json.loads(text) for text in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert line["tokens"] > 0


@pytest.mark.parametrize("strategy", ["Interruption", "EWMA"])
def test_the_audit_scores_a_sample_exactly(strategy: str, tmp_path: Path) -> None:
    job = copy.deepcopy(JOB)
    job["spec"]["oldLogits"] = {"strategy": strategy, "auditFraction": 0.5}
    job["spec"]["staleness"] = {"maxVersions": 2}
    audit = trained(job, tmp_path).old_logits.audit
    assert audit.tokens > 0
    if strategy == "Interruption":
        assert audit.agree == audit.tokens
        assert audit.mean_error < 1e-5
    else:
        assert audit.mean_error > 1e-5, "an average of versions is none of them"


def test_a_critic_trains_beside_the_policy(tmp_path: Path) -> None:
    job = copy.deepcopy(JOB)
    job["spec"]["oldLogits"] = {"strategy": "Interruption"}
    job["spec"]["algorithm"] |= {"groupSize": 1, "batchGroups": 16, "advantage": "GAE", "critic": {}}
    summary = trained(job, tmp_path)
    assert summary.old_logits.exact_coverage == 1.0
    lines = [json.loads(text) for text in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["valueLoss"] > 0.0 for line in lines)
    assert lines[0]["explainedVariance"] == 0.0, "the critic begins as a constant"
    assert any(line["explainedVariance"] != 0.0 for line in lines[1:])
