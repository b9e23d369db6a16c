"""Checkpoints and going back to one. Owns the rows, the new lineage a restore opens, and the compensating event `undone`.

Does not own the files: they are synced and renamed before the row is written, and deleted after it is dropped.

A restore of c leaves versions c+1..v behind. What was trained into them waits again, so the new lineage may train it; but a trajectory
with even one token of an abandoned version is discarded as `abandoned_lineage`: its staleness against the new lineage has no meaning.
Tokens that were scored stay scored: a token's fate is final. Nothing is deleted and no number is used again.
"""

from asyncppo_runtime.ledger import counters, epochs, fates, groups
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import CheckpointRow, Fate, LedgerSettings, Reason, Restored


def checkpoints(db: Database) -> list[CheckpointRow]:
    """Committed and not dropped, oldest first."""
    rows = db.rows("SELECT version, lineage, path, abandoned FROM checkpoints ORDER BY version")
    return [CheckpointRow(version, lineage, path, bool(abandoned)) for version, lineage, path, abandoned in rows]


def dropped(db: Database) -> set[int]:
    """Versions whose checkpoints need not be there any more: given up one by one, or left behind by a restore."""
    rows = db.rows("SELECT DISTINCT CAST(subject AS INTEGER) FROM events WHERE kind = 'checkpoint_dropped'")
    known = checkpoints(db)
    return {row[0] for row in rows} - {row.version for row in known} | {row.version for row in known if row.abandoned}


def commit(db: Database, version: int, path: str, now: float) -> None:
    """The row that makes the files count."""
    row = db.row("SELECT lineage, abandoned FROM versions WHERE version = ?", version)
    if row is None or row[1]:
        raise LedgerRefusedError(
            "UnknownVersion", f"version {version} is not one of this lineage's; it cannot have a checkpoint"
        )
    if version < db.fact("pruned_to"):
        raise LedgerRefusedError(
            "Pruned", f"bodies a restore of version {version} needs are deleted; take a checkpoint of a newer version"
        )
    db.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, 0)", version, row[0], path)
    db.event(now, "checkpoint", version, path)


def drop(db: Database, version: int, now: float) -> None:
    """Forget a checkpoint."""
    if db.execute("DELETE FROM checkpoints WHERE version = ?", version):
        db.event(now, "checkpoint_dropped", version)


def restore(db: Database, settings: LedgerSettings, version: int, now: float) -> Restored:
    """Go on from `version`. See `Ledger.restore`."""
    row = db.row("SELECT abandoned FROM checkpoints WHERE version = ?", version)
    if row is None:
        known = ", ".join(str(one.version) for one in checkpoints(db)) or "none"
        raise LedgerRefusedError(
            "UnknownCheckpoint", f"there is no checkpoint of version {version}; there are: {known}"
        )
    if row[0]:
        raise LedgerRefusedError(
            "Abandoned", f"version {version} was left behind by an earlier restore; choose one of its successors"
        )
    newest, head = int(db.fact("version")), int(db.fact("head"))
    undone = discarded = 0
    if version != head:
        undone, discarded = _open_lineage(db, settings, version, now)
    # A restore that was not followed by its publication (a crash in between) asks for it again.
    return Restored(version, newest + 1, int(db.fact("lineage")), newest != version, undone, discarded)


def _open_lineage(db: Database, settings: LedgerSettings, version: int, now: float) -> tuple[int, int]:
    db.execute("UPDATE versions SET abandoned = 1 WHERE version > ? AND abandoned = 0", version)
    db.execute("UPDATE checkpoints SET abandoned = 1 WHERE version > ?", version)
    db.set_fact("lineage", int(db.fact("lineage")) + 1)
    db.set_fact("head", version)
    undone = _undo_training(db, version)
    discarded = _discard_abandoned(db, settings, now)
    epoch = epochs.last_epoch(db)
    if epoch.open and epoch.target > version:
        epochs.set_target(db, epoch.number, -1)
    db.event(now, "restored", version, f"lineage {db.fact('lineage')}, {undone} undone, {discarded} discarded")
    return undone, discarded


def _undo_training(db: Database, version: int) -> int:
    group_ids = [
        row[0]
        for row in db.rows("SELECT group_id FROM groups WHERE state = 'Trained' AND trained_version > ?", version)
    ]
    wanted = ids(group_ids)
    chosen = f"fate = '{Fate.TRAINED}' AND group_id IN (SELECT value FROM json_each(?))"
    tokens = db.row(
        "SELECT coalesce(sum(past - first), 0) FROM trajectories JOIN segments USING (lease_id) "
        f"WHERE state = 'Scored' AND {chosen}",
        wanted,
    )
    db.counters.add(counters.TRAINED_TOKENS, -(tokens[0] if tokens else 0))
    undone = db.execute(f"UPDATE trajectories SET fate = '{Fate.WAITING}', trained_version = -1 WHERE {chosen}", wanted)
    db.counters.add(counters.TRAINED, -undone)
    db.counters.add(counters.WAITING, undone)
    db.counters.add(counters.UNDONE, undone)
    groups.set_state(db, group_ids, groups.TRAINED, groups.READY)
    db.execute("UPDATE groups SET trained_version = -1 WHERE group_id IN (SELECT value FROM json_each(?))", wanted)
    db.execute(
        "UPDATE trainings SET undone = 1 WHERE version > ? AND group_id IN (SELECT value FROM json_each(?))",
        version,
        wanted,
    )
    return undone


def _discard_abandoned(db: Database, settings: LedgerSettings, now: float) -> int:
    touched = [
        row[0]
        for row in db.rows(
            "SELECT DISTINCT lease_id FROM leases JOIN segments USING (lease_id) LEFT JOIN trajectories USING (lease_id) "
            "WHERE segments.version IN (SELECT version FROM versions WHERE abandoned = 1) "
            "AND (leases.state = 'InFlight' OR fate = 'Waiting')"
        )
    ]
    fates.spoil(db, touched, Reason.ABANDONED_LINEAGE)
    # Not the task's fault: the place is free again and nothing counts against it.
    return len(groups.drop_trajectories(db, settings, touched, Reason.ABANDONED_LINEAGE, now, counted=False))
