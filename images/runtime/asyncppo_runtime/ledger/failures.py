"""Trajectories in a row that were worth nothing: how many, why, and in whose words. Owns that run; it is durable, so that a restart of
the learner in the middle of it counts on.

Only what speaks of the environment counts. A trajectory that came too late, or of a version nobody wants any more, says nothing about
it: such ones neither lengthen the run nor end it. Does not own when enough is enough (the learner says).
"""

from collections.abc import Iterable

import msgspec

from asyncppo_runtime.ledger.database import Database
from asyncppo_runtime.ledger.records import FailureRun, Reason

FACT = "failures"
FAILURES = frozenset(
    {
        Reason.ENVIRONMENT_ERROR,
        Reason.ENVIRONMENT_TIMEOUT,
        Reason.REWARD_OUT_OF_BOUNDS,
        Reason.TOKEN_OUT_OF_VOCABULARY,
        Reason.CONTEXT_EXCEEDED,
        Reason.MALFORMED,
        Reason.OVERLONG,
        Reason.EMPTY,
    }
)
"""Reasons that count."""


def read(db: Database) -> FailureRun:
    """The run as it is."""
    stored = db.later_fact(FACT, "")
    return msgspec.json.decode(stored, type=FailureRun) if stored else FailureRun()


def note(db: Database, outcomes: Iterable[tuple[str, str]]) -> FailureRun:
    """Count finished trajectories, in the order they came: (why it is discarded, '' if it is kept; what was said about it)."""
    before = run = read(db)
    for reason, text in outcomes:
        if not reason:
            run = run.after_success()
        elif reason in FAILURES:
            run = run.after_failure(reason, text)
    if run != before:
        _write(db, run)
    return run


def begin_again(db: Database, limit: int) -> None:
    """At a start: a run that was long enough to end the job has done so; whoever starts it again means to try again."""
    run = read(db)
    if run.in_a_row >= limit:
        _write(db, run.after_success())


def _write(db: Database, run: FailureRun) -> None:
    db.set_fact(FACT, msgspec.json.encode(run).decode())
