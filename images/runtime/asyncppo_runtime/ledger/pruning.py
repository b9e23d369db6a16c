"""Keeping the file small: bodies nobody can need again are deleted. Owns what that is; rows, counts and history always stay.

A body (token ids, log-probs) can be needed again while its group is live, or while a retained checkpoint is older than the step that
trained it: a restore would make it wait again. A fixed sample of groups is kept whole, for `show`.
"""

from asyncppo_runtime.ledger.database import Database, ids


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
    db.execute(f"DELETE FROM bodies WHERE lease_id IN ({leases})", emptied)
    db.execute(f"UPDATE segments SET behavior = NULL, old = NULL WHERE lease_id IN ({leases})", emptied)
    return len(found)
