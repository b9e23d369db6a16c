"""What exact old log-probs cost in wall time: each exact strategy over Recompute, from real runs of the same job. Owns the comparison only.

    python -m benchmarks.strategies [--updates 40] [--repeats 2] [--jobs environment compute] [--output DIR]

Two jobs, both `benchmarks/overlap.yaml`: *environment*, as it is (slow tools, so sampling is waited for), and *compute*, without tools
and with a wider model (so the learner is waited for). Each strategy is divided by two others. Recompute, the first, costs nothing here:
an update is one optimizer step, so the step's own forward recomputes. EWMA, the second, makes one batched forward at the beginning of a
step, which is what recomputing costs wherever a batch is trained in several steps. Time runs from the first update to the last, so that
starting up counts for none; repeats are interleaved and the least of each strategy counts. Finished runs in --output are kept.
"""

import argparse
import tempfile
from pathlib import Path

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import load_manifest
from asyncppo.api.sweep import with_fields
from asyncppo.report.history import read_history
from asyncppo.report.summary import read_summary
from asyncppo.study.cells import Cell, parse_strategies, plan
from asyncppo.study.driver import Mode, Study, complete, prepare

MANIFEST = Path(__file__).parent / "overlap.yaml"
STRATEGIES = "Recompute,EWMA,Interruption/Overlapped,Interruption/Barrier,Snapshot/Memory,Snapshot/Disk,Dedicated"
JOBS = {
    "environment": {},
    "compute": {
        "environment.parameters": {},
        "model.builtin": {"hiddenSize": 256, "layers": 4, "heads": 4, "intermediateSize": 1024},
    },
}


def main() -> None:
    """Run what is missing and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--strategies", default=STRATEGIES, help="the first two are what the others are divided by")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--output", type=Path, help="keep the runs here (default: a folder that is removed)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.jobs:
            made = with_fields(load_manifest(MANIFEST), JOBS[name] | {"algorithm.updates": options.updates}, name)
            print(f"\n{name}-bound job, {options.updates} updates", flush=True)
            print(
                measured(made, options.strategies, options.repeats, (options.output or Path(temporary)) / name),
                flush=True,
            )


def measured(job: AsyncPPOJob, strategies: str, repeats: int, folder: Path) -> str:
    """The table of one job. Repeats differ in their seed."""
    contenders = parse_strategies(strategies)
    study = Study(folder, plan(job, contenders, repeats, None, "benchmark"), Mode.WALL)
    prepare(study)
    complete(study, lambda seconds: None, lambda name: print(f"  {name}", flush=True))
    best: dict[str, float] = {}
    stall: dict[str, float] = {}
    for cell in study.cells:
        label, seconds = cell.contender.label, span(study, cell)
        if seconds < best.get(label, float("inf")):
            best[label] = seconds
            syncs = read_summary(study.folder / "runs" / cell.name / "summary.json").syncs
            stall[label] = syncs.stall_seconds.p50
    first, second = (contender.label for contender in contenders[:2])
    rows = [f"{'strategy':24}{'seconds':>9}{'over ' + first:>16}{'over ' + second:>12}{'stall of a sync':>18}"]
    for label, seconds in best.items():
        ratios = f"{seconds / best[first]:16.2f}{seconds / best[second]:12.2f}"
        rows.append(f"{label:24}{seconds:9.1f}{ratios}{stall[label] * 1e3:15.0f} ms")
    return "\n".join(rows)


def span(study: Study, cell: Cell) -> float:
    """Seconds from the first update to the last."""
    history = read_history(study.folder / "runs" / cell.name / "metrics.jsonl")
    return history[-1].at_seconds - history[0].at_seconds


if __name__ == "__main__":
    main()
