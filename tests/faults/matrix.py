"""Every role killed and hung in every phase of a sync: `python -m tests.faults.matrix [--part ci] [--write FILE]`.

Owns the cases and the table of what came of them. A role that has the phase's call in its hands is hit there; for all others the
coordinator holds at that point until they are hit.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.fleet import Case, Fleet, Verdict
from tests.faults.jobs import VARIANTS, column, job, old_logits
from tests.faults.page import write_block

from asyncppo.sync.columns import INEXACT, MEMBER_PHASES, SNAPSHOT, Phase

PHASES = (
    Phase.PAUSE,
    Phase.FLUSH,
    Phase.SCORE,
    Phase.SEAL,
    Phase.STEP,
    Phase.PUBLISH,
    Phase.LOAD,
    Phase.RESUME,
)
ROLES = ("learner", "rollout", "coordinator", "scorer")
KINDS = ("crash", "hang")
HEAVIEST = (("learner", Phase.STEP), ("rollout", Phase.LOAD), ("coordinator", Phase.PUBLISH))
"""The learner has moved parameters that are written nowhere yet; a rollout is between two versions; a step waits for its coordinator."""
AT_ONCE = 3


def case(variant: str, role: str, phase: Phase, kind: str) -> Case | None:
    """None where the variant's column has no such phase, or no scorer beside the phase."""
    name, phases = name_of(variant, role, phase, kind), column(variant).phases
    if role == "scorer":
        if variant == "Dedicated" and phase is Phase.SCORE:
            return Case(name, job(variant), f"old-logit:WorkerScores:before:{kind}@2", {})
        if variant == "Dedicated" and phase in phases:
            return Case(name, job(variant), f"coordinator:{phase}:before:hold@2", {0: ("old-logit-0", kind)})
        # Else a thread of the learner, so it dies with it; in Barrier scoring is the phase itself, and the learner's. What approximates
        # has no scorer: its anchors are made within the gradient.
        if phase is not Phase.SCORE or phase in phases or not old_logits(variant).strategy.exact:
            return None
        return Case(name, job(variant), f"learner:Scoring:after:{kind}@3", {})
    if phase not in phases:
        return None
    if role == "coordinator":
        return Case(name, job(variant), f"coordinator:{phase}:before:{kind}@2", {})
    if (role == "rollout") is (phase in MEMBER_PHASES):
        moment = "before" if role == "rollout" else "after"
        return Case(name, job(variant), f"{role}:{phase}:{moment}:{kind}@2", {})
    if role == "learner":
        return Case(name, job(variant), f"coordinator:{phase}:after:hold@3", {0: ("learner", kind)})
    return Case(name, job(variant), f"coordinator:{phase}:before:hold@2", {0: ("rollout-0", kind)})


def name_of(variant: str, role: str, phase: Phase, kind: str) -> str:
    """A case's name, also of its folder."""
    return f"{variant}-{role}-{phase}-{kind}".lower()


def whole() -> Iterator[Case]:
    """Every cell of every variant."""
    for variant in VARIANTS:
        for role in ROLES:
            for phase in PHASES:
                for kind in KINDS:
                    if (found := case(variant, role, phase, kind)) is not None:
                        yield found


def ci_part() -> list[Case]:
    """Every pair of role and phase once, by turns crash and hang; scorers in the columns that have them beside the phases. Of the
    variants that this leaves out, or nearly so, each role's death at the phase where it holds most."""
    chosen = [
        case("Barrier", role, phase, KINDS[(i + k) % 2])
        for i, role in enumerate(ROLES)
        for k, phase in enumerate(PHASES)
    ]
    chosen += [case("Dedicated", "scorer", phase, KINDS[k % 2]) for k, phase in enumerate(PHASES)]
    chosen += [case("Overlapped", "scorer", Phase.SCORE, "crash"), case("SnapshotDisk", "scorer", Phase.SCORE, "hang")]
    rest = [variant for variant in VARIANTS if column(variant) in (SNAPSHOT, INEXACT)]
    chosen += [case(variant, role, phase, "crash") for variant in rest for role, phase in HEAVIEST]
    return [found for found in chosen if found is not None]


def table(verdicts: Sequence[Verdict]) -> str:
    """Recovery in seconds, crash / hang, a table for each variant; and the sums."""
    by_name = {verdict.case.name: verdict for verdict in verdicts}
    lines = []
    for variant in VARIANTS:
        exact = "" if old_logits(variant).strategy.exact else " (approximate)"
        lines += [f"{variant}{exact}:", "", f"| role | {' | '.join(PHASES)} |", "|---" * (len(PHASES) + 1) + "|"]
        for role in ROLES:
            cells = [" / ".join(_cell(variant, role, phase, kind, by_name) for kind in KINDS) for phase in PHASES]
            cells = ["" if cell == "– / –" else cell for cell in cells]
            if any(cells):
                lines.append(f"| {role} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, sums(verdicts)])


def _cell(variant: str, role: str, phase: Phase, kind: str, verdicts: dict[str, Verdict]) -> str:
    verdict = verdicts.get(name_of(variant, role, phase, kind))
    if verdict is None:
        return "–"  # no such pair, or not run
    if verdict.problems or verdict.driven is None:
        return "FAILED"
    recovery = verdict.driven.met[0].recovery if verdict.driven.met else None
    return "end" if recovery is None else f"{recovery:.1f}"


def sums(verdicts: Sequence[Verdict]) -> str:
    """All runs together, in words."""
    audits = [verdict.audit for verdict in verdicts if verdict.audit is not None]
    driven = [verdict.driven for verdict in verdicts if verdict.driven is not None]
    faults = sum(len(found.met) for found in driven)
    return (
        f"{len(verdicts)} runs, {faults} faults met, {sum(d.phase == 'Complete' for d in driven)} runs complete; "
        f"{sum(a.totals.received for a in audits):,} trajectories received, {sum(a.totals.trained for a in audits):,} trained; "
        f"tokens: {sum(a.totals.tokens.sampled for a in audits):,} in the ledgers, {sum(a.lost for a in audits)} lost, "
        f"{sum(a.mislabelled for a in audits)} mislabelled, {sum(a.uncovered for a in audits)} trained without the old log-prob that "
        f"the strategy promises; "
        f"{sum(a.twice for a in audits)} double trainings; {sum(a.syncs for a in audits)} syncs, {sum(a.fences for a in audits)} fences."
    )


def main() -> int:
    """Run the cases, print what came of them; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["ci", "whole"], default="whole")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of the job (default: %(default)s)")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="runs beside each other (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run later than this")
    parser.add_argument("--folder", type=Path, help="where the runs' folders are made; default: a temporary one")
    parser.add_argument("--resume", action="store_true", help="cells that have passed in that folder are not run again")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page")
    options = parser.parse_args()
    variants = {variant.lower() for variant in options.variants.split(",")}
    cases = [
        found
        for found in (ci_part() if options.part == "ci" else whole())
        if options.only in found.name and found.name.split("-")[0] in variants
    ]
    started, verdicts = time.monotonic(), list[Verdict]()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        Fleet(options.folder or Path(temporary) / "runs", options.at_once) as fleet,
    ):
        if options.resume:
            verdicts = [kept for found in cases if (kept := fleet.passed(found)) is not None]
            cases = [found for found in cases if found not in [kept.case for kept in verdicts]]
        while cases and time.monotonic() - started < options.seconds:
            chosen, cases = cases[: 4 * options.at_once], cases[4 * options.at_once :]
            for verdict in fleet.all(chosen):
                verdicts.append(verdict)
                print(line(verdict), flush=True)
    words = table(verdicts)
    if cases:
        words += f" {len(cases)} more cells were not run for want of time: {', '.join(left.name for left in cases)}."
    print(words, f"\n{time.monotonic() - started:.0f} s")
    if options.write is not None:
        write_block(options.write, "matrix", words)
    return 1 if any(verdict.problems for verdict in verdicts) else 0


def line(verdict: Verdict) -> str:
    """One run in a line."""
    driven = verdict.driven
    took = (
        ""
        if driven is None
        else f"{driven.seconds:.1f} s, "
        + ", ".join(
            f"{met.fault}: {'job over' if met.recovery is None else f'{met.recovery:.1f} s'}" for met in driven.met
        )
    )
    return f"{'ok  ' if not verdict.problems else 'FAIL'} {verdict.case.name}: {took}{''.join(f'; {p}' for p in verdict.problems)}"


if __name__ == "__main__":
    sys.exit(main())
