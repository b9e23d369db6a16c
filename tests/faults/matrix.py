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
from tests.faults.jobs import COLUMNS, job
from tests.faults.page import write_block

from asyncppo.sync.columns import COLUMNS as PROTOCOL
from asyncppo.sync.columns import MEMBER_PHASES, Phase

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
AT_ONCE = 3


def case(column: str, role: str, phase: Phase, kind: str) -> Case | None:
    """None where the column has no such phase, or no scorer beside the phase."""
    name = f"{column}-{role}-{phase}-{kind}".lower()
    if role == "scorer":
        if column == "Dedicated" and phase is Phase.SCORE:
            return Case(name, job(column), f"old-logit:WorkerScores:before:{kind}@2", {})
        if column == "Dedicated" and phase in PROTOCOL[column].phases:
            return Case(name, job(column), f"coordinator:{phase}:before:hold@2", {0: ("old-logit-0", kind)})
        # Else a thread of the learner, so it dies with it; in Barrier scoring is the phase itself, and the learner's.
        if phase is not Phase.SCORE or column == "Barrier":
            return None
        return Case(name, job(column), f"learner:Scoring:after:{kind}@3", {})
    if phase not in PROTOCOL[column].phases:
        return None
    if role == "coordinator":
        return Case(name, job(column), f"coordinator:{phase}:before:{kind}@2", {})
    if (role == "rollout") is (phase in MEMBER_PHASES):
        moment = "before" if role == "rollout" else "after"
        return Case(name, job(column), f"{role}:{phase}:{moment}:{kind}@2", {})
    if role == "learner":
        return Case(name, job(column), f"coordinator:{phase}:after:hold@3", {0: ("learner", kind)})
    return Case(name, job(column), f"coordinator:{phase}:before:hold@2", {0: ("rollout-0", kind)})


def whole() -> Iterator[Case]:
    """Every cell of every column."""
    for column in COLUMNS:
        for role in ROLES:
            for phase in PHASES:
                for kind in KINDS:
                    if (found := case(column, role, phase, kind)) is not None:
                        yield found


def ci_part() -> list[Case]:
    """Every pair of role and phase once, by turns crash and hang; scorers in the columns that have them beside the phases."""
    chosen = [
        case("Barrier", role, phase, KINDS[(i + k) % 2])
        for i, role in enumerate(ROLES)
        for k, phase in enumerate(PHASES)
    ]
    chosen += [case("Dedicated", "scorer", phase, KINDS[k % 2]) for k, phase in enumerate(PHASES)]
    chosen += [case("Overlapped", "scorer", Phase.SCORE, "crash"), case("Snapshot", "scorer", Phase.SCORE, "hang")]
    return [found for found in chosen if found is not None]


def table(verdicts: Sequence[Verdict]) -> str:
    """Recovery in seconds, crash / hang, a table for each column; and the sums."""
    by_name = {verdict.case.name: verdict for verdict in verdicts}
    lines = []
    for column in COLUMNS:
        lines += [f"{column}:", "", f"| role | {' | '.join(PHASES)} |", "|---" * (len(PHASES) + 1) + "|"]
        for role in ROLES:
            cells = [" / ".join(_cell(column, role, phase, kind, by_name) for kind in KINDS) for phase in PHASES]
            cells = ["" if cell == "– / –" else cell for cell in cells]
            if any(cells):
                lines.append(f"| {role} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, sums(verdicts)])


def _cell(column: str, role: str, phase: Phase, kind: str, verdicts: dict[str, Verdict]) -> str:
    verdict = verdicts.get(f"{column}-{role}-{phase}-{kind}".lower())
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
        f"{sum(a.mislabelled for a in audits)} mislabelled, {sum(a.uncovered for a in audits)} trained without an exact old log-prob; "
        f"{sum(a.twice for a in audits)} double trainings; {sum(a.syncs for a in audits)} syncs, {sum(a.fences for a in audits)} fences."
    )


def main() -> int:
    """Run the cases, print what came of them; 1 when anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["ci", "whole"], default="whole")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="runs beside each other (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run later than this")
    parser.add_argument("--folder", type=Path, help="where the runs' folders are made; default: a temporary one")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page")
    options = parser.parse_args()
    cases = [found for found in (ci_part() if options.part == "ci" else whole()) if options.only in found.name]
    started, verdicts = time.monotonic(), []
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary,
        Fleet(options.folder or Path(temporary) / "runs", options.at_once) as fleet,
    ):
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
