"""Whether training under faults learns what it learns without: the same job and number of trained trajectories, some seeds each.

    python -m benchmarks.fault_reward [--seeds 4] [--updates 60]

Owns the comparison. Rewards of one seed differ by chance also without faults (which trajectory comes first is not in the seed), so the
means are compared by the spread over the seeds.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from random import Random

from benchmarks.fault_runs import random_fault
from tests.faults.fleet import Case, Fleet, Verdict
from tests.faults.jobs import job

FAULTS = 12
HANGS = 2


def reward_case(seed: int, updates: int, *, faults: bool) -> Case:
    """The guessing game with a policy that is just large enough; with faults, a dozen at random."""
    document = job("Barrier", seed=seed, updates=updates)
    spec = document["spec"]
    assert isinstance(spec, dict)
    spec["model"] = {"builtin": {"hiddenSize": 32, "layers": 1, "heads": 2, "intermediateSize": 64}}
    spec["environment"] = {"type": "GuessNumber"}
    spec["sampling"] = {"maxTokens": 1, "contextLength": 64}
    spec["algorithm"] = {"updates": updates, "groupSize": 8, "batchGroups": 8, "entropyCoefficient": 0.01}
    spec["rollout"] = {"replicas": 2, "concurrency": 32}
    spec["activeDeadlineSeconds"] = 600
    plan = ",".join(_plan(seed, updates)) if faults else ""
    return Case(f"{'faults' if faults else 'calm'}-{seed}", document, plan, {}, must_meet=False)


def _plan(seed: int, updates: int) -> list[str]:
    chance = Random(seed)
    entries: list[str] = []
    while len(entries) < FAULTS:
        entry = random_fault(chance, "Barrier")
        hangs = sum(":hang@" in other for other in entries)
        if ":hang@" not in entry or hangs < HANGS:
            head, _, _ = entry.rpartition("@")
            entries.append(f"{head}@{chance.randint(1, max(2, updates // 2))}")
    return entries


def report(verdicts: list[Verdict]) -> str:
    """Both kinds side by side."""
    lines = [
        "| | runs | trained trajectories | faults met | reward, last tenth | spread over seeds |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("calm", "faults"):
        chosen = [v for v in verdicts if v.case.name.startswith(kind) and v.driven is not None and v.audit is not None]
        rewards = [v.driven.reward for v in chosen if v.driven is not None]
        trained = sorted({v.audit.totals.trained for v in chosen if v.audit is not None})
        met = sum(len(v.driven.met) for v in chosen if v.driven is not None)
        spread = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
        mean = statistics.mean(rewards) if rewards else 0.0
        lines.append(
            f"| {'without' if kind == 'calm' else 'with'} faults | {len(chosen)} | {', '.join(f'{n:,}' for n in trained)} each | {met} "
            f"| {mean:.3f} ({', '.join(f'{reward:.3f}' for reward in rewards)}) | {spread:.3f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run both, print; 1 when a run went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args()
    cases = [
        reward_case(seed, options.updates, faults=faults) for seed in range(options.seeds) for faults in (False, True)
    ]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        Fleet(Path(temporary) / "runs", options.at_once, longest=700.0) as fleet,
    ):
        verdicts = list(fleet.all(cases))
    for verdict in verdicts:
        if verdict.problems:
            print(verdict.case.name, "; ".join(verdict.problems))
    print(report(verdicts))
    return 1 if any(verdict.problems for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
