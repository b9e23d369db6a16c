"""A whole job through vLLM, its engine killed in mid-run: trained to the end, nothing lost, every old log-prob exact."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]
UPDATES = 12
LIMIT = 500.0


def _manifest(folder: Path) -> Path:
    """The example, with smaller batches so that it is over soon."""
    job = yaml.safe_load((ROOT / "examples" / "guess-number-vllm.yaml").read_text())
    job["spec"]["algorithm"] |= {"updates": UPDATES, "batchGroups": 8}
    job["spec"]["rollout"]["concurrency"] = 16
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def _updates(output: Path) -> int:
    metrics = output / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def _joined(output: Path) -> int:
    return sum("joined as" in log.read_text() for log in (output / "logs").glob("rollout-*.log"))


def _core(process: psutil.Process) -> psutil.Process | None:
    children = process.children(recursive=True)
    return next((child for child in children if "EngineCore" in " ".join([child.name(), *child.cmdline()])), None)


def test_a_job_survives_the_death_of_an_engine(tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = [
        str(Path(sys.executable).with_name("asyncppo")),
        "run",
        str(_manifest(tmp_path)),
        "--output",
        str(output),
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as run:
        deadline = time.monotonic() + LIMIT
        killed = False
        while run.poll() is None and time.monotonic() < deadline:
            if not killed and _joined(output) == 2 and _updates(output) >= 3:
                core = _core(psutil.Process(run.pid))
                assert core is not None
                core.send_signal(signal.SIGKILL)
                killed = True
            time.sleep(0.05)
        if run.poll() is None:
            run.send_signal(signal.SIGINT)
            run.wait(60)
    text = (tmp_path / "log").read_text()
    assert run.returncode == 0, text[-3000:]
    assert killed
    summary = json.loads((output / "summary.json").read_text())
    ledger, tokens = summary["ledger"], summary["ledger"]["tokens"]
    assert summary["phase"] == "Complete"
    assert summary["updates"] == UPDATES
    assert summary["oldLogits"]["exactCoverage"] == 1.0
    assert summary["oldLogits"]["violations"] == 0
    assert ledger["leased"] == ledger["received"] + ledger["expired"] + ledger["returned"] + ledger["inFlight"]
    assert ledger["received"] == ledger["trained"] + sum(ledger["discarded"].values()) + ledger["waiting"]
    assert tokens["sampled"] == tokens["scored"] + sum(tokens["discarded"].values()) + tokens["unscored"]
    assert summary["discrepancy"]["maxAbs"] < 1e-4
    assert sum(summary["restarts"].values()) == 1
