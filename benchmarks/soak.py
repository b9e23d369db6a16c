"""One long job under random faults from a seed, for a given time: what happened to it, and that its books balance.

    python -m benchmarks.soak [--seconds 600] [--seed 0] [--variant Barrier] [--every 10]

Owns the plan of the blows. About every `--every` seconds one program is killed or stopped, at a random moment and so in whatever it is
doing; calls are lost, doubled and delayed beside. Stops by itself: a clean stop at the end of the time, bounded by the runner.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.fault_runs import random_fault
from tests.faults.fleet import Case, Fleet, Verdict
from tests.faults.jobs import VARIANTS, job

ENDLESS = 100_000
CALM_SECONDS = 15.0
"""At the end, without blows: what is under way recovers before the stop."""


def soak_case(seconds: float, seed: int, variant: str, every: float) -> Case:
    """The job, its blows (at seconds from the start) and its faults at points."""
    chance = random.Random(seed)
    roles = ["learner", "rollout-0", "rollout-1", "coordinator-0", "coordinator-1"]
    roles += ["old-logit-0"] if variant == "Dedicated" else []
    blows, at = [], 5.0
    while (at := at + chance.uniform(0.5, 1.5) * every) < seconds - CALM_SECONDS:
        blows.append((at, chance.choice(roles), chance.choice(["crash", "crash", "hang"])))
    quiet = (":crash@", ":hang@")
    points = [random_fault(chance, variant) for _ in range(int(4 * seconds / every))]
    plan = ",".join(entry for entry in points if not any(kind in entry for kind in quiet))
    document = job(variant, seed=seed, updates=ENDLESS)
    spec = document["spec"]
    assert isinstance(spec, dict)
    spec |= {"activeDeadlineSeconds": int(seconds + 120), "backoffLimit": 10_000}
    return Case(f"soak-{variant}-{seed}", document, plan, {}, must_meet=False, blows=tuple(blows), seconds=seconds)


def report(verdict: Verdict) -> str:
    """What there is to say of it."""
    driven, found = verdict.driven, verdict.audit
    if driven is None or found is None:
        return f"no result: {verdict.problems}"
    tokens = found.totals.tokens
    kinds = Counter(":".join(met.fault.split(":")[-1:]).split("@")[0].split("=")[0] for met in driven.met)
    times = sorted(met.recovery for met in driven.met if met.recovery is not None)
    fates = {"trained": tokens.trained, "waiting": tokens.scored - tokens.trained + tokens.unscored, **tokens.discarded}
    return "\n".join(
        [
            f"{driven.phase} after {driven.seconds:.0f} s and {driven.updates} updates; problems: {', '.join(verdict.problems) or 'none'}",
            f"faults: {len(driven.met)} ({', '.join(f'{name} {count}' for name, count in kinds.most_common())})",
            f"restarts: {', '.join(f'{name} {count}' for name, count in sorted(driven.restarts.items()))}",
            f"tokens by fate: {tokens.sampled:,} in the ledger: {', '.join(f'{name} {count:,}' for name, count in fates.items())}",
            f"lost {found.lost}, mislabelled {found.mislabelled}, double trainings {found.twice}, exact coverage "
            f"{driven.old_logits.exact_coverage}",
            f"syncs {found.syncs}, fences {found.fences}; leases expired {found.totals.expired}",
            f"from a fault to the end of the next sync: median {quantile(times, 0.5)}, 95 % {quantile(times, 0.95)}, "
            f"longest {quantile(times, 1.0)}",
        ]
    )


def quantile(times: list[float], share: float) -> str:
    """In words."""
    return f"{times[min(len(times) - 1, int(share * len(times)))]:.1f} s" if times else "–"


def main() -> int:
    """Soak, print; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="Barrier")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two blows (default: %(default)s)")
    options = parser.parse_args()
    case = soak_case(options.seconds, options.seed, options.variant, options.every)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        Fleet(Path(temporary) / "runs", 1, longest=options.seconds + 180.0) as fleet,
    ):
        verdict = fleet.submit(case).result()
    print(report(verdict))
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
