"""Stands in for `asyncppo run` in the tests of a wall-clock study: leaves what a run leaves, and says how it was called."""

import json
import sys
from pathlib import Path

from tests.unit.report.builders import recorded, summary, update

from asyncppo.report.measures import Audit, OldLogits, Quantiles, Syncs
from asyncppo.report.summary import encode_summary


def main() -> int:
    """argv: MANIFEST --output DIR [--resume]."""
    manifest, folder = Path(sys.argv[1]), Path(sys.argv[3])
    strategy = json.loads(manifest.read_text())["spec"]["oldLogits"]["strategy"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text(manifest.read_text())
    with (folder / "calls").open("a") as file:
        file.write(" ".join(sys.argv[4:]) + "\n")
    if strategy == "EWMA" and "--resume" not in sys.argv:
        print("the learner ran out of memory", file=sys.stderr)
        return 3
    recorded(folder / "metrics.jsonl", [update(1, 0.25, tokens=10), update(2, 0.5, tokens=30)])
    audit = Audit(tokens=40, agree=30, false_masks=10, mean_error=0.5) if strategy == "EWMA" else Audit()
    told = summary(
        strategy=strategy,
        exact=strategy != "EWMA",
        old_logits=OldLogits(strategy=strategy, exact=strategy != "EWMA", exact_coverage=0.75, audit=audit),
        syncs=Syncs(count=4, stall_seconds=Quantiles(p50=0.5)),
    )
    (folder / "summary.json").write_bytes(encode_summary(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
