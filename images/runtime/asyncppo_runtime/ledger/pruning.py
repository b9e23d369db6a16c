"""Keeping the file small: bodies nobody can need again are deleted, and of groups given up long ago the rows too. Owns what that is; the
counts always stay.

A body (token ids, log-probs) can be needed again while its group is live, or while a retained checkpoint is older than the step that
trained it: a restore would make it wait again. A fixed sample of groups is kept whole, for `show`; of the others what a rollout said of
an error goes into the history.

A group that was discarded never comes back. Where an environment fails nearly always there are thousands of them for each one that is
trained: only the newest keep their rows.
"""

import msgspec

from asyncppo_runtime.ledger import counters
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.groups import DISCARDED

ERROR_EVENT = "trajectory_error"
"""What was said of an error of the lease that is its subject; written when the body goes."""


class _Said(msgspec.Struct):
    """Of a body, what is kept."""

    error: str = ""


SAID = msgspec.msgpack.Decoder(_Said)


def prune(db: Database, sample_every: int, limit: int, now: float) -> int:
    """Look at up to `limit` groups that have ended; returns how many."""
    row = db.row("SELECT min(version) FROM checkpoints WHERE abandoned = 0")
    oldest = row[0] if row is not None and row[0] is not None else -1
    found = [
        row[0]
        for row in db.rows(
            "SELECT group_id FROM groups WHERE pruned = 0 AND state IN ('Trained', 'Discarded') "
            "AND (state = 'Discarded' OR trained_version <= ?) LIMIT ?",
            oldest,
            limit,
        )
    ]
    if not found:
        return 0
    db.event(now, "pruned", len(found), f"up to version {oldest}")
    db.set_fact("pruned_to", max(oldest, int(db.fact("pruned_to"))))
    db.execute("UPDATE groups SET pruned = 1 WHERE group_id IN (SELECT value FROM json_each(?))", ids(found))
    emptied = ids(group for group in found if sample_every <= 0 or group % sample_every)
    leases = "SELECT lease_id FROM leases WHERE group_id IN (SELECT value FROM json_each(?))"
    for lease, body in db.rows(
        f"SELECT lease_id, body FROM bodies JOIN trajectories USING (lease_id) WHERE fate = 'Discarded' AND lease_id IN ({leases})",
        emptied,
    ):
        if said := SAID.decode(body).error:
            db.event(now, ERROR_EVENT, lease, said)
    db.execute(f"DELETE FROM bodies WHERE lease_id IN ({leases})", emptied)
    db.execute(f"UPDATE segments SET behavior = NULL, old = NULL WHERE lease_id IN ({leases})", emptied)
    return len(found)


def forget(db: Database, keep: int, limit: int, now: float) -> int:
    """Delete every row of the oldest discarded groups but the newest `keep` ones, up to `limit` at a time; their counts stay. Returns how
    many. The newest group and the newest lease stay whatever became of them: their numbers must not be given again. An upload for a
    lease that is forgotten is refused as of an unknown one, which is as final as late."""
    edge = db.row(
        "SELECT group_id FROM groups WHERE state = ? ORDER BY group_id DESC LIMIT 1 OFFSET ?", DISCARDED, keep
    )
    found = [
        row[0]
        for row in db.rows(
            "SELECT group_id FROM groups WHERE state = ? AND group_id <= ? "
            "AND group_id < (SELECT max(group_id) FROM groups) "
            "AND group_id <> (SELECT group_id FROM leases ORDER BY lease_id DESC LIMIT 1) "
            "AND NOT EXISTS (SELECT 1 FROM trainings WHERE trainings.group_id = groups.group_id) ORDER BY group_id LIMIT ?",
            DISCARDED,
            -1 if edge is None else edge[0],
            limit,
        )
    ]
    if not found:
        return 0
    groups = ids(found)
    leases = ids(
        row[0]
        for row in db.rows("SELECT lease_id FROM leases WHERE group_id IN (SELECT value FROM json_each(?))", groups)
    )
    for name, n in counters.count_rows(db.connection, leases).items():
        db.counters.add(counters.FORGOTTEN + name, n)
    db.counters.add(counters.FORGOTTEN_GROUPS, len(found))
    for table in ("bodies", "segments", "trajectories", "leases"):
        db.execute(f"DELETE FROM {table} WHERE lease_id IN (SELECT value FROM json_each(?))", leases)
    for table in ("slots", "groups"):
        db.execute(f"DELETE FROM {table} WHERE group_id IN (SELECT value FROM json_each(?))", groups)
    db.execute(
        "DELETE FROM events WHERE kind = 'group_discarded' AND CAST(subject AS INTEGER) IN (SELECT value FROM json_each(?))",
        groups,
    )
    db.execute(
        "DELETE FROM events WHERE kind = ? AND CAST(subject AS INTEGER) IN (SELECT value FROM json_each(?))",
        ERROR_EVENT,
        leases,
    )
    db.event(now, "forgotten", len(found), f"discarded groups {found[0]} to {found[-1]}")
    return len(found)
