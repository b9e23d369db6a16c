"""What must be true of a run's books when it is over, read from its ledger and nowhere else. Owns that list.

Sums are taken from rows, not from the counters that the learner keeps. What an old log-prob must be depends on the strategy: of the
version that sampled its token where the strategy is exact; of no version, and said to be the strategy's own, where it approximates.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from asyncppo.api.correction import Strategy
from asyncppo.report.measures import LedgerTotals
from asyncppo_runtime.ledger.reader import LedgerReader


@dataclass(frozen=True)
class Audit:
    """totals: counted from rows. lost: leases, trajectories and tokens that the equations miss. mislabelled: scored segments that were
    sampled from other weights than their version's, or whose old log-probs are not of it (approximated: claim to be of any). twice:
    groups trained more than once in a lineage, and versions with two successors that count. uncovered: trained tokens without an exact
    old log-prob (approximated: without the strategy's own). fences: members shut out. drift: how counters and rows differ, if they do.
    """

    totals: LedgerTotals
    lost: int
    mislabelled: int
    twice: int
    uncovered: int
    syncs: int
    fences: int
    drift: str


def audit(ledger: Path, strategy: Strategy) -> Audit:
    """Read the ledger of a run of `strategy` that is over."""
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
        mislabelled, uncovered = _scores(connection, strategy)
        twice = _count(connection, TRAINED_TWICE) + len(parents) - len(set(parents))
        fences = _count(connection, "SELECT count(*) FROM events WHERE kind = 'fenced'")
    finally:
        connection.close()
    drift = "" if totals == counters else f"the counters say {counters}, the rows {totals}"
    return Audit(totals, lost, mislabelled, twice, uncovered, syncs, fences, drift)


NO_VERSION = -1
TRAINED_TWICE = """
SELECT count(*) FROM (
  SELECT t.lease_id FROM trajectories t JOIN trainings g ON g.group_id = t.group_id
  WHERE t.fate = 'Trained' AND g.undone = 0 GROUP BY t.lease_id HAVING count(*) <> 1)
"""


def _scores(connection: sqlite3.Connection, strategy: Strategy) -> tuple[int, int]:
    """(segments whose old log-probs have a wrong label, trained tokens without the right kind of one)."""
    mislabelled = uncovered = 0
    versions = connection.execute("SELECT version, published_hash, train_hash FROM versions")
    known = {version: hashes for version, *hashes in versions}
    for first, past, version, weights_hash, state, scorer, scorer_hash, kind, fate in connection.execute(
        "SELECT s.first, s.past, s.version, s.weights_hash, s.state, s.scorer_version, s.scorer_hash, s.kind, t.fate "
        "FROM segments s LEFT JOIN trajectories t USING (lease_id)"
    ):
        published_hash, train_hash = known[version]
        label = (version, train_hash) if strategy.exact else (NO_VERSION, "")
        promised = kind.startswith("exact_") if strategy.exact else kind == strategy.lower()
        if state == "Scored" and (weights_hash != published_hash or (scorer, scorer_hash) != label):
            mislabelled += 1
        if fate == "Trained" and not (state == "Scored" and promised):
            uncovered += past - first
    return mislabelled, uncovered


def _count(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])
