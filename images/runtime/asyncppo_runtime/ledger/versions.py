"""Published versions: the row that makes a weights file count, and the marks of the batch it was made from. Owns publication.

Does not own the file (renamed before the row is written; one without a row is an orphan) nor announcing it (`epochs.py`).
"""

from collections.abc import Collection

import msgspec

from asyncppo.sync.columns import SealRule
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.ledger import counters, epochs, groups
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.members import IN_SYNC
from asyncppo_runtime.ledger.records import Fate, LedgerSettings, Reason, VersionRow

STEP = "step"


def versions(db: Database) -> list[VersionRow]:
    """Every published version, oldest first."""
    return [
        VersionRow(
            msgspec.msgpack.decode(record, type=VersionRecord), bool(abandoned), bool(announced), trained, metrics
        )
        for record, abandoned, announced, trained, metrics in db.rows(
            "SELECT record, abandoned, announced, trained_groups, metrics FROM versions ORDER BY version"
        )
    ]


def version(db: Database, number: int) -> VersionRecord | None:
    """The record of a version; None if never published."""
    row = db.row("SELECT record FROM versions WHERE version = ?", number)
    return None if row is None else msgspec.msgpack.decode(row[0], type=VersionRecord)


def publish(
    db: Database,
    settings: LedgerSettings,
    record: VersionRecord,
    canary: Canary | None,
    trained: Collection[int],
    zero_variance: Collection[int],
    metrics: bytes,
    now: float,
) -> None:
    """The version's row and its batch's marks. See `Ledger.publish`."""
    there = version(db, record.version)
    if there == record:
        return
    newest, lineage = int(db.fact("version")), int(db.fact("lineage"))
    if there is not None or record.version != newest + 1:
        raise LedgerRefusedError(
            "VersionTaken", f"the next version is {newest + 1}, not {record.version}; numbers are never reused"
        )
    head = int(db.fact("head"))
    if record.lineage != lineage or record.parent != head:
        raise LedgerRefusedError(
            "WrongParent",
            f"version {record.version} names parent {record.parent} in lineage {record.lineage}; it continues {head} in {lineage}",
        )
    epoch = epochs.last_epoch(db)
    if settings.seal_rule is SealRule.SCORED and record.reason == STEP and newest >= 0:
        if epoch.state != epochs.SEALED:
            raise LedgerRefusedError(
                "NotSealed", f"version {record.version} needs a sealed epoch: score and seal {newest} first"
            )
        if epoch.target >= 0:
            raise LedgerRefusedError(
                "AlreadyStepped", f"epoch {epoch.number} has its step, version {epoch.target}: one per version"
            )
    db.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, 0, 0, ?, ?, ?, ?)",
        record.version, lineage, record.train_hash, record.published_hash, len(trained), msgspec.msgpack.encode(record),
        None if canary is None else msgspec.msgpack.encode(canary), metrics,
    )  # fmt: skip
    db.set_fact("version", record.version)
    db.set_fact("head", record.version)
    _mark_trained(db, settings, sorted(set(trained)), record.version, lineage)
    groups.discard(db, zero_variance, Reason.ZERO_VARIANCE, now)
    if epoch.state == epochs.SEALED and epoch.target < 0:
        epochs.set_target(db, epoch.number, record.version)
    elif not epoch.open and not db.row("SELECT 1 FROM members WHERE state IN (?, ?)", *IN_SYNC):
        # Nobody samples: whoever joins is given this version, so there is nothing to seal.
        epochs.announce(db, record.version)
    db.event(now, "published", record.version, f"{record.reason}, {len(trained)} groups")


def needed_versions(db: Database, settings: LedgerSettings) -> set[int]:
    """Versions whose weights may still be asked for."""
    epoch = epochs.last_epoch(db)
    needed = {
        int(db.fact("version")),
        int(db.fact("announced")),
        int(db.fact("head")),
        epoch.target if epoch.open else -1,
    }
    if settings.exact:
        needed |= {row[0] for row in db.rows("SELECT DISTINCT version FROM segments WHERE state = 'Unscored'")}
        if not settings.seal_rule.flushes:
            row = db.row("SELECT min(version) FROM leases WHERE state = 'InFlight'")
            if row is not None and row[0] is not None:
                needed |= {
                    found[0]
                    for found in db.rows("SELECT version FROM versions WHERE version >= ? AND abandoned = 0", row[0])
                }
    return needed - {-1}


def _mark_trained(db: Database, settings: LedgerSettings, group_ids: list[int], number: int, lineage: int) -> None:
    if not group_ids:
        return
    wanted = ids(group_ids)
    found = groups.states(db, group_ids)
    unready = [group for group in group_ids if found.get(group) != groups.READY]
    if unready:
        raise LedgerRefusedError(
            "GroupNotReady", f"groups {unready[:8]} are {[found.get(group) for group in unready[:8]]}, not ready"
        )
    kept = f"SELECT lease_id FROM trajectories WHERE fate = '{Fate.WAITING}' AND group_id IN (SELECT value FROM json_each(?))"
    unscored = db.row(f"SELECT count(*) FROM segments WHERE state = 'Unscored' AND lease_id IN ({kept})", wanted)
    if unscored and unscored[0]:
        raise LedgerRefusedError("NotScored", f"{unscored[0]} segments of the batch have no old log-probs")
    scored = db.row(
        f"SELECT coalesce(sum(past - first), 0) FROM segments WHERE state = 'Scored' AND lease_id IN ({kept})", wanted
    )
    db.counters.add(counters.TRAINED_TOKENS, scored[0] if scored else 0)
    per_group: dict[int, int] = dict(
        db.rows(
            "SELECT group_id, count(*) FROM trajectories WHERE fate = ? AND group_id IN (SELECT value FROM json_each(?)) GROUP BY group_id",
            Fate.WAITING,
            wanted,
        )
    )
    changed = db.execute(
        "UPDATE trajectories SET fate = ?, trained_version = ? WHERE fate = ? AND group_id IN (SELECT value FROM json_each(?))",
        Fate.TRAINED,
        number,
        Fate.WAITING,
        wanted,
    )
    db.counters.add(counters.WAITING, -changed)
    db.counters.add(counters.TRAINED, changed)
    groups.set_state(db, group_ids, groups.READY, groups.TRAINED)
    db.execute(
        "UPDATE groups SET trained_version = ? WHERE group_id IN (SELECT value FROM json_each(?))", number, wanted
    )
    # The key (group, lineage) is what makes "at most once per lineage" a fact and not a habit.
    db.execute_many(
        "INSERT INTO trainings VALUES (?, ?, ?, ?, 0)",
        [(group, lineage, number, per_group[group]) for group in group_ids],
    )
