"""How long the demo takes to learn: from random weights to a mean reward of 0.65. Owns the reading of a run, not the job.

    python -m benchmarks.learning [--run DIR]

Runs `examples/guess-number.yaml` by `asyncppo run`, or reads a run that is there. Seconds count from the learner's start to the update at
which the mean reward of the last 25 updates first reached 0.65; they are a measurement of this machine now, the rest is not.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from asyncppo.report.history import read_history, running_mean
from asyncppo.report.summary import read_summary

MANIFEST = Path(__file__).parent.parent / "examples" / "guess-number.yaml"
GOAL = 0.65
WINDOW = 25


def main() -> None:
    """Run, or read, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run's folder; default: run the example now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.run or Path(temporary) / "run"
        if options.run is None:
            code = "import sys; from asyncppo.cli import main; sys.exit(main())"
            subprocess.run([sys.executable, "-c", code, "run", str(MANIFEST), "--output", str(folder)], check=True)
        print(report(folder))


def report(folder: Path) -> str:
    """What the run came to."""
    history, summary = read_history(folder / "metrics.jsonl"), read_summary(folder / "summary.json")
    means = running_mean([line.reward for line in history], WINDOW)
    reached = next((line for line, mean in zip(history, means, strict=True) if mean >= GOAL), None)
    when = f"after {reached.at_seconds:.0f} s, update {reached.update}" if reached else "never"
    tokens = summary.ledger.tokens
    share = sum(tokens.discarded.values()) / max(1, tokens.sampled)
    return "\n".join(
        [
            f"mean reward {GOAL} (over {WINDOW} updates): {when}; all {len(history)} updates took {history[-1].at_seconds:.0f} s",
            f"reward: first tenth {summary.reward.first:.3f}, last tenth {summary.reward.last:.3f}",
            f"staleness: mean {summary.staleness.mean:.2f}, max {summary.staleness.max}, bound {summary.staleness_bound}",
            f"exact coverage {summary.old_logits.exact_coverage}, violations {summary.old_logits.violations}",
            f"discarded tokens: {share:.1%}; ledger {'balanced' if summary.ledger.balanced else 'NOT balanced'}",
        ]
    )


if __name__ == "__main__":
    main()
