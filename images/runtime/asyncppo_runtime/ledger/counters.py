"""The ledger's running counts, so that totals cost nothing. Owns their names, and the count from rows they must equal.

A count changes in the same transaction as the rows it counts. In-flight, waiting and unscored are counted on their own rather than
derived, so that the equations of LedgerTotals say something.
"""

import sqlite3
from collections.abc import Mapping

from asyncppo.report.measures import LedgerTokens, LedgerTotals
from asyncppo_runtime.ledger.records import FALLBACK_KIND

LEASED = "leased"
IN_FLIGHT = "in_flight"
RECEIVED = "received"
EXPIRED = "expired"
RETURNED = "returned"
WAITING = "waiting"
TRAINED = "trained"
UNDONE = "undone"
DISCARDED = "discarded/"
REFUSED = "refused/"
SAMPLED_TOKENS = "tokens/sampled"
SCORED_TOKENS = "tokens/scored"
UNSCORED_TOKENS = "tokens/unscored"
TRAINED_TOKENS = "tokens/trained"
FALLBACK_TOKENS = "tokens/fallback"
DISCARDED_TOKENS = "tokens/discarded/"
GROUPS = "groups/"
FORGOTTEN = "forgotten/"
"""Before the name of another count: its part whose rows are deleted (`pruning.forget`)."""
FORGOTTEN_GROUPS = "forgotten_groups"


class Counters:
    """Committed counts, and the changes of the transaction that is open."""

    def __init__(self, committed: Mapping[str, int]) -> None:
        self._committed = dict(committed)
        self._pending: dict[str, int] = {}

    def add(self, name: str, amount: int) -> None:
        """Change a count within the open transaction."""
        if amount:
            self._pending[name] = self._pending.get(name, 0) + amount

    def value(self, name: str) -> int:
        """A count as the open transaction sees it."""
        return self._committed.get(name, 0) + self._pending.get(name, 0)

    def pending(self) -> list[tuple[str, int]]:
        """(name, change) to be written before the commit."""
        return list(self._pending.items())

    def commit(self) -> None:
        """The transaction is durable. Swaps one dict for another, so another thread never sees half a change."""
        if self._pending:
            merged = dict(self._committed)
            for name, amount in self._pending.items():
                merged[name] = merged.get(name, 0) + amount
            self._committed = merged
            self._pending = {}

    def roll_back(self) -> None:
        """The transaction never was."""
        self._pending = {}

    def snapshot(self) -> Mapping[str, int]:
        """Committed counts by name; not to be changed."""
        return self._committed


def totals_of(counts: Mapping[str, int]) -> LedgerTotals:
    """The figures of a run from counts by name."""

    def by_reason(prefix: str) -> dict[str, int]:
        return {name.removeprefix(prefix): n for name, n in sorted(counts.items()) if name.startswith(prefix) and n}

    return LedgerTotals(
        leased=counts.get(LEASED, 0),
        returned=counts.get(RETURNED, 0),
        expired=counts.get(EXPIRED, 0),
        in_flight=counts.get(IN_FLIGHT, 0),
        received=counts.get(RECEIVED, 0),
        trained=counts.get(TRAINED, 0),
        discarded=by_reason(DISCARDED),
        waiting=counts.get(WAITING, 0),
        undone=counts.get(UNDONE, 0),
        refused=by_reason(REFUSED),
        tokens=LedgerTokens(
            sampled=counts.get(SAMPLED_TOKENS, 0),
            scored=counts.get(SCORED_TOKENS, 0),
            discarded=by_reason(DISCARDED_TOKENS),
            unscored=counts.get(UNSCORED_TOKENS, 0),
            trained=counts.get(TRAINED_TOKENS, 0),
            fallback=counts.get(FALLBACK_TOKENS, 0),
        ),
    )


def read_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """The counts as stored."""
    return dict(connection.execute("SELECT name, value FROM counters").fetchall())


def recount(connection: sqlite3.Connection) -> LedgerTotals:
    """The same figures from rows. Refusals leave no rows of their own (a late arrival is not the ledger's), so they are taken over; so is
    what was counted of rows that are deleted."""
    stored = read_counts(connection)
    counts = count_rows(connection)
    for name, n in stored.items():
        if name.startswith(REFUSED):
            counts[name] = n
        elif name.startswith(FORGOTTEN):
            counted = name.removeprefix(FORGOTTEN)
            counts[counted] = counts.get(counted, 0) + n
    return totals_of(counts)


def count_rows(connection: sqlite3.Connection, lease_ids: str | None = None) -> dict[str, int]:
    """Counts by name, from rows: of all leases, or of these (as `database.ids` writes them), which then must have been in no step."""
    counts: dict[str, int] = {}
    only = "" if lease_ids is None else "AND lease_id IN (SELECT value FROM json_each(?))"
    arguments = () if lease_ids is None else (lease_ids,)

    def count(name: str, what: str, where: str) -> None:
        row = connection.execute(f"SELECT {what} FROM {where} {only}", arguments).fetchone()
        counts[name] = row[0] or 0

    count(LEASED, "count(*)", "leases WHERE true")
    for name, state in ((IN_FLIGHT, "InFlight"), (EXPIRED, "Expired"), (RETURNED, "Returned")):
        count(name, "count(*)", f"leases WHERE state = '{state}'")
    count(RECEIVED, "count(*)", "trajectories WHERE true")
    count(WAITING, "count(*)", "trajectories WHERE fate = 'Waiting'")
    count(TRAINED, "count(*)", "trajectories WHERE fate = 'Trained'")
    tokens = "sum(past - first)"
    count(SAMPLED_TOKENS, tokens, "segments WHERE true")
    count(SCORED_TOKENS, tokens, "segments WHERE state = 'Scored'")
    count(FALLBACK_TOKENS, tokens, f"segments WHERE kind = '{FALLBACK_KIND}'")
    count(UNSCORED_TOKENS, tokens, "segments WHERE state = 'Unscored'")
    count(
        TRAINED_TOKENS,
        tokens,
        "segments JOIN trajectories USING (lease_id) WHERE state = 'Scored' AND fate = 'Trained'",
    )
    for prefix, what, where in (
        (DISCARDED, "count(*)", "trajectories WHERE fate = 'Discarded'"),
        (DISCARDED_TOKENS, tokens, "segments WHERE state = 'Discarded'"),
    ):
        for reason, n in connection.execute(f"SELECT reason, {what} FROM {where} {only} GROUP BY reason", arguments):
            counts[prefix + reason] = n
    if lease_ids is None:
        undone = connection.execute("SELECT sum(trajectories) FROM trainings WHERE undone = 1").fetchone()
        counts[UNDONE] = undone[0] or 0
    return counts
