"""What must be true of a run's books when it is over, read from its ledger and nowhere else. Owns that list.

Sums are taken from rows, not from the counters that the learner keeps.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from asyncppo.report.measures import LedgerTotals
from asyncppo_runtime.ledger.reader import LedgerReader


@dataclass(frozen=True)
class Audit:
    """totals: counted from rows. lost: leases, trajectories and tokens that the equations miss. mislabelled: scored segments whose old
    log-probs are not of their version. twice: groups trained more than once in a lineage, and versions with two successors that count.
    uncovered: trained tokens without an exact old log-prob. fences: members shut out. drift: how counters and rows differ, if they do.
    """

    totals: LedgerTotals
    lost: int
    mislabelled: int
    twice: int
    uncovered: int
    syncs: int
    fences: int
    drift: str


def audit(ledger: Path) -> Audit:
    """Read the ledger of a run that is over."""
    with LedgerReader.open_read_only(ledger) as reader:
        totals, counters = reader.recount(), reader.totals()
        syncs = len(reader.epochs())
        parents = [row.record.parent for row in reader.versions() if not row.abandoned]
    connection = sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True)
    try:
        lost = abs(totals.leased - totals.received - totals.expired - totals.returned - totals.in_flight)
        lost += abs(totals.received - totals.trained - sum(totals.discarded.values()) - totals.waiting)
        tokens = totals.tokens
        lost += abs(tokens.sampled - tokens.scored - sum(tokens.discarded.values()) - tokens.unscored)
        mislabelled, uncovered = _scores(connection)
        twice = _count(connection, TRAINED_TWICE) + len(parents) - len(set(parents))
        fences = _count(connection, "SELECT count(*) FROM events WHERE kind = 'fenced'")
    finally:
        connection.close()
    drift = "" if totals == counters else f"the counters say {counters}, the rows {totals}"
    return Audit(totals, lost, mislabelled, twice, uncovered, syncs, fences, drift)


TRAINED_TWICE = """
SELECT count(*) FROM (
  SELECT t.lease_id FROM trajectories t JOIN trainings g ON g.group_id = t.group_id
  WHERE t.fate = 'Trained' AND g.undone = 0 GROUP BY t.lease_id HAVING count(*) <> 1)
"""


def _scores(connection: sqlite3.Connection) -> tuple[int, int]:
    """(segments whose old log-probs are not of their version, trained tokens without an exact one)."""
    mislabelled = uncovered = 0
    hashes = dict(connection.execute("SELECT version, train_hash FROM versions"))
    for first, past, version, state, scorer, scorer_hash, kind, fate in connection.execute(
        "SELECT s.first, s.past, s.version, s.state, s.scorer_version, s.scorer_hash, s.kind, t.fate "
        "FROM segments s LEFT JOIN trajectories t USING (lease_id)"
    ):
        if state == "Scored" and (scorer != version or hashes[version] != scorer_hash):
            mislabelled += 1
        if fate == "Trained" and not (state == "Scored" and kind.startswith("exact_")):
            uncovered += past - first
    return mislabelled, uncovered


def _count(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])
