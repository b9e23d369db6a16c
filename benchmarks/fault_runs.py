"""Runs of a small job under random faults, a few in each, every run from a seed: what is lost, mislabelled, trained twice.

    python -m benchmarks.fault_runs --seeds 0:200 --results runs/fault-runs.jsonl [--write docs/reliability.md]

Owns the choice of the faults and the sums. Results are kept line by line: the same command goes on where it was stopped. The programs are
the real ones (`tests/faults`). Faults that must end a job by design (a full volume, a version that every rollout refuses) are not chosen
here; they have tests of their own.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from tests.faults.fleet import Case, Fleet, Verdict
from tests.faults.jobs import column, job
from tests.faults.matrix import line
from tests.faults.page import write_block

from asyncppo.sync.columns import MEMBER_PHASES, SealRule

UPDATES = 6
VARIANTS = "Barrier,Overlapped,SnapshotDisk"
LEARNER_CALLS = ("Upload", "Lease", "Heartbeat", "Join", "Ready")
ROLLOUT_CALLS = ("Upload", "Lease", "Heartbeat", "Join", "Ready")
HANGS = 2
"""Most hangs in one run: each takes the probes some seconds to see."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as it is kept."""

    seed: int
    variant: str
    plan: str
    met: list[str]
    recoveries: list[float]
    complete: bool
    problems: list[str]
    seconds: float
    received: int = 0
    trained: int = 0
    tokens: int = 0
    discarded: int = 0
    expired: int = 0
    lost: int = 0
    mislabelled: int = 0
    twice: int = 0
    uncovered: int = 0
    syncs: int = 0
    fences: int = 0
    restarts: int = 0


def fault_case(seed: int, variants: Sequence[str]) -> tuple[str, Case]:
    """The run of a seed: its variant, by turns, and two to four faults, each at a random time of a random point."""
    chance = random.Random(seed)
    variant = variants[seed % len(variants)]
    entries: list[str] = []
    hangs = 0
    wanted = chance.randint(2, 4)
    while len(entries) < wanted:
        entry = random_fault(chance, variant)
        hang = ":hang@" in entry
        if not (hang and hangs == HANGS):
            entries.append(entry)
            hangs += hang
    return variant, Case(
        f"seed-{seed}", job(variant, seed=seed, updates=UPDATES), ",".join(entries), {}, must_meet=False
    )


def random_fault(chance: random.Random, variant: str) -> str:
    """One entry of a plan."""
    scorer = ["old-logit"] if variant == "Dedicated" else []
    role = chance.choice(["learner", "rollout", "rollout", "coordinator", *scorer])
    rule, phases = column(variant).rule, column(variant).phases
    on_members = [phase.value for phase in phases if phase in MEMBER_PHASES]
    on_learner = [phase.value for phase in phases if phase not in MEMBER_PHASES]
    kinds, moment = ["crash", "hang", "delay"], chance.choice(["before", "after"])
    if role == "coordinator":
        point, count = chance.choice([*on_members, *on_learner]), chance.randint(1, 4)
        kinds += ["drop", "duplicate"]
    elif role == "old-logit":
        point, count = chance.choice(["WorkerJoin", "WorkerTake", "WorkerScores"]), chance.randint(1, 4)
        kinds += ["drop", "duplicate"]
    elif role == "learner":
        segments = ["Segments"] if rule is not SealRule.NONE else []
        calls = chance.random() < 0.4
        point = chance.choice(
            [*LEARNER_CALLS, *segments] if calls else [*on_learner, "Weights", "Checkpoint", "Commit", "Scoring"]
        )
        count = chance.randint(1, 40 if point == "Commit" else 12 if calls else UPDATES)
    else:
        point = chance.choice([*on_members, *on_members, *ROLLOUT_CALLS, "Pulled"])
        count = chance.randint(
            1, 10 if point in ("Upload", "Lease", "Heartbeat") else 3 if point in ("Join", "Ready") else 4
        )
        if point in ROLLOUT_CALLS:
            kinds += ["drop", "duplicate"]
        elif point == "Pulled":
            kinds += ["truncate"]
            moment = "before"
    kind = chance.choice(kinds)
    moment = "before" if kind == "duplicate" else moment
    seconds = f"={chance.choice([0.05, 0.5, 2.5])}" if kind in ("delay", "duplicate") else ""
    return f"{role}:{point}:{moment}:{kind}{seconds}@{count}"


def kept(seed: int, variant: str, verdict: Verdict) -> Line:
    """What is kept of a run."""
    driven, found = verdict.driven, verdict.audit
    head = Line(
        seed=seed,
        variant=variant,
        plan=verdict.case.plan,
        met=[met.fault for met in driven.met] if driven else [],
        recoveries=[met.recovery for met in driven.met if met.recovery is not None] if driven else [],
        complete=driven is not None and driven.phase == "Complete",
        problems=list(verdict.problems),
        seconds=driven.seconds if driven else 0.0,
        restarts=sum(driven.restarts.values()) if driven else 0,
    )
    if found is None:
        return head
    return msgspec.structs.replace(
        head,
        received=found.totals.received,
        trained=found.totals.trained,
        tokens=found.totals.tokens.sampled,
        discarded=sum(found.totals.tokens.discarded.values()),
        expired=found.totals.expired,
        lost=found.lost,
        mislabelled=found.mislabelled,
        twice=found.twice,
        uncovered=found.uncovered,
        syncs=found.syncs,
        fences=found.fences,
    )


def report(lines: list[Line]) -> str:
    """The sums, for a page."""
    met = [entry for found in lines for entry in found.met]
    kinds = Counter(re.split("[:=@]", entry)[3] for entry in met)
    roles = Counter(re.sub(r"-\d+$", "", entry.split(":")[0]) for entry in met)
    times = sorted(seconds for found in lines for seconds in found.recoveries)

    def total(name: str) -> int:
        return sum(getattr(found, name) for found in lines)

    def quantile(share: float) -> str:
        return f"{times[min(len(times) - 1, int(share * len(times)))]:.1f} s" if times else "–"

    counts = [
        ("runs, seeds", f"{len(lines)}, {min(x.seed for x in lines)} to {max(x.seed for x in lines)}"),
        ("complete", f"{total('complete')}"),
        ("by variant", ", ".join(f"{name} {n}" for name, n in sorted(Counter(x.variant for x in lines).items()))),
        ("faults met", f"{len(met)}: {', '.join(f'{name} {n}' for name, n in kinds.most_common())}"),
        ("by role", ", ".join(f"{name} {n}" for name, n in roles.most_common())),
        (
            "trajectories",
            f"{total('received'):,} received, {total('trained'):,} trained; {total('expired'):,} leases expired",
        ),
        ("tokens in the ledgers", f"{total('tokens'):,}, of them discarded {total('discarded'):,}"),
        ("**lost**, **mislabelled** tokens", f"**{total('lost')}**, **{total('mislabelled')}**"),
        ("**double trainings**", f"**{total('twice')}**"),
        ("trained tokens without the old log-prob that the strategy promises", f"{total('uncovered')}"),
        ("syncs, fences, restarts of programs", f"{total('syncs'):,}, {total('fences')}, {total('restarts'):,}"),
        (
            "from a fault to the end of the next sync",
            f"median {quantile(0.5)}, 95 % {quantile(0.95)}, longest {quantile(1.0)}",
        ),
        ("runs with anything wrong", ", ".join(str(x.seed) for x in lines if x.problems) or "none"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in counts)])


def main() -> int:
    """Run what is not there yet, print the sums; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:200", metavar="FIRST:PAST")
    parser.add_argument(
        "--variants",
        default=VARIANTS,
        help="of the job, by turns (default: %(default)s; also the others of the matrix)",
    )
    parser.add_argument("--results", type=Path, default=Path("runs/fault-runs.jsonl"), help="default: %(default)s")
    parser.add_argument("--at-once", type=int, default=3, help="runs beside each other (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the runs' folders are made; default: a temporary one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run later than this")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the sums into this page")
    options = parser.parse_args()
    first, _, past = options.seeds.partition(":")
    variants = options.variants.split(",")
    wanted = range(int(first), int(past))
    options.results.parent.mkdir(parents=True, exist_ok=True)
    lines = read(options.results)
    deadline = time.monotonic() + options.seconds
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        Fleet(options.folder or Path(temporary) / "runs", options.at_once) as fleet,
        options.results.open("ab") as file,
    ):
        missing = [seed for seed in wanted if seed not in lines]
        while missing and time.monotonic() < deadline:
            seeds, missing = missing[: 4 * options.at_once], missing[4 * options.at_once :]
            cases = [fault_case(seed, variants) for seed in seeds]
            verdicts = fleet.all(case for _, case in cases)
            for seed, (variant, _), verdict in zip(seeds, cases, verdicts, strict=True):
                lines[seed] = kept(seed, variant, verdict)
                file.write(msgspec.json.encode(lines[seed]) + b"\n")
                file.flush()
                print(line(verdict), flush=True)
    chosen = [lines[seed] for seed in sorted(lines) if seed in wanted]
    if not chosen:
        print("no run was made")
        return 1
    print(report(chosen))
    if options.write is not None:
        write_block(options.write, "fault runs", report(chosen))
    return 1 if any(found.problems for found in chosen) else 0


def read(results: Path) -> dict[int, Line]:
    """Runs that were made already, by seed; the newest of each."""
    if not results.exists():
        return {}
    decode = msgspec.json.Decoder(Line).decode
    return {found.seed: found for found in map(decode, results.read_bytes().splitlines())}


if __name__ == "__main__":
    sys.exit(main())
