"""Synchronous over asynchronous training: wall time to the same number of trained trajectories. Owns the comparison, not the job.

    python -m benchmarks.overlap [--updates 40] [--seed 0] [--output DIR]

Two runs of `benchmarks/overlap.yaml` by `asyncppo run`, alike but for `staleness.maxVersions`: 0 (every batch is sampled by the weights
that train on it) and the manifest's. Both times are from the first update to the last, so that starting up counts for neither.

The ideal is computed from the synchronous run: with perfect overlap an update takes as long as the busier side, that is the learner's
own work (training, scoring, sync) or the episodes of a batch divided over all slots, whichever is longer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from asyncppo.api.manifest import dump_manifest, load_manifest
from asyncppo.report.history import read_history
from asyncppo.report.measures import Summary
from asyncppo.report.summary import read_summary

MANIFEST = Path(__file__).parent / "overlap.yaml"
WORK = ("Training", "Scoring", "Sync")


@dataclass(frozen=True)
class Measured:
    """One run. seconds: from the first update to the last. work: the learner's own seconds per update. episode: mean seconds of one."""

    summary: Summary
    seconds: float
    work: float
    episode: float


def main() -> None:
    """Run both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="keep the runs here (default: a folder that is removed)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bound = load_manifest(MANIFEST).spec.staleness.max_versions
        synchronous = measure(folder, "synchronous", 0, options.updates, options.seed)
        asynchronous = measure(folder, "asynchronous", bound, options.updates, options.seed)
    print(report(synchronous, asynchronous))


def measure(folder: Path, name: str, bound: int, updates: int, seed: int) -> Measured:
    """Run the job once with this staleness bound."""
    document = json.loads(dump_manifest(load_manifest(MANIFEST)))
    document["metadata"]["name"] = name
    document["spec"]["staleness"]["maxVersions"] = bound
    manifest = folder / f"{name}.json"
    manifest.write_text(json.dumps(document))
    output = folder / name
    print(f"{name} training, {updates} updates", flush=True)
    command = [
        sys.executable,
        "-c",
        "import sys; from asyncppo.cli import main; sys.exit(main())",
        "run",
        str(manifest),
    ]
    options = ["--output", str(output), "--updates", str(updates), "--seed", str(seed)]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    summary, history = read_summary(output / "summary.json"), read_history(output / "metrics.jsonl")
    later = history[1:]
    spec = load_manifest(manifest).spec
    busy = sum(
        (spent.get("sampling", 0.0) + spent.get("environment", 0.0)) * spec.rollout.concurrency
        for role, spent in summary.time.items()
        if role.startswith("rollout")
    )
    return Measured(
        summary=summary,
        seconds=history[-1].at_seconds - history[0].at_seconds,
        work=sum(update.seconds.get(state, 0.0) for update in later for state in WORK) / len(later),
        episode=busy / summary.ledger.received,
    )


def report(synchronous: Measured, asynchronous: Measured) -> str:
    """The comparison in words."""
    spec = load_manifest(MANIFEST).spec
    batch = spec.algorithm.batch_groups * spec.algorithm.group_size
    slots = spec.rollout.replicas * spec.rollout.concurrency
    steps = synchronous.summary.updates - 1
    sampling = synchronous.episode * batch / slots
    ideal = synchronous.seconds / steps / max(synchronous.work, sampling)
    rows = [
        f"{steps * batch:,} trajectories trained in {steps} updates, {slots} episodes at once",
        "",
        f"{'':14}{'seconds':>9}{'staleness':>11}{'reward':>9}{'ledger':>12}",
    ]
    for name, run in (("synchronous", synchronous), ("asynchronous", asynchronous)):
        summary = run.summary
        rows.append(
            f"{name:14}{run.seconds:9.1f}{summary.staleness.mean:11.2f}{summary.reward.last:9.3f}"
            f"{'balanced' if summary.ledger.balanced else 'NOT BALANCED':>12}"
        )
    rows += [
        "",
        f"synchronous / asynchronous      {synchronous.seconds / asynchronous.seconds:6.2f}",
        f"the same with perfect overlap   {ideal:6.2f}"
        f"   (per update: learner {synchronous.work:.3f} s, episodes {sampling:.3f} s over all slots)",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
