"""Groups: opened on demand, filled place by place, ready when full. Owns places, completion, and when a group is given up.

Group k is task k of the job. A place is Free, Leased, Filled or Closed; a lost member's place is free again until the place has
been lost `max_attempts` times: then the whole group is discarded as `group_incomplete`, since half a group cannot be trained on.
"""

import hashlib
from collections.abc import Collection, Iterable

from asyncppo_runtime.ledger import counters, fates
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.fates import Place
from asyncppo_runtime.ledger.records import Fate, LeaseState, LedgerSettings, Reason

OPEN, READY, TRAINED, DISCARDED = "Open", "Ready", "Trained", "Discarded"
FREE, LEASED, FILLED, CLOSED = "Free", "Leased", "Filled", "Closed"


def derived_seed(seed: int, *path: object) -> int:
    """63 bits from the job's seed and a path of names and numbers: the same at every run, unlike at every path."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def open_group(db: Database, settings: LedgerSettings) -> int:
    """The next task's group, all places free."""
    row = db.row("SELECT coalesce(max(group_id) + 1, 0) FROM groups")
    group_id = int(row[0]) if row else 0
    db.execute(
        "INSERT INTO groups VALUES (?, ?, ?, '', -1, -1, 0, -1, 0)",
        group_id,
        derived_seed(settings.seed, "task", group_id),
        OPEN,
    )
    db.execute_many(
        "INSERT INTO slots VALUES (?, ?, ?, 0, 0)", [(group_id, slot, FREE) for slot in range(settings.group_size)]
    )
    db.counters.add(counters.GROUPS + OPEN, 1)
    return group_id


def live_groups(db: Database) -> int:
    """Groups opened and neither trained nor discarded."""
    return db.counters.value(counters.GROUPS + OPEN) + db.counters.value(counters.GROUPS + READY)


def set_state(db: Database, group_ids: Collection[int], before: str, after: str, reason: str = "") -> None:
    """Move groups that are all in state `before`."""
    db.execute(
        "UPDATE groups SET state = ?, reason = ?, pruned = 0 WHERE group_id IN (SELECT value FROM json_each(?))",
        after,
        reason,
        ids(group_ids),
    )
    db.counters.add(counters.GROUPS + before, -len(group_ids))
    db.counters.add(counters.GROUPS + after, len(group_ids))


def states(db: Database, group_ids: Iterable[int]) -> dict[int, str]:
    """State by group id; unknown ids are left out."""
    return dict(
        db.rows("SELECT group_id, state FROM groups WHERE group_id IN (SELECT value FROM json_each(?))", ids(group_ids))
    )


def fill(db: Database, places: Collection[Place]) -> None:
    """Their trajectories are received."""
    db.execute_many(
        "UPDATE slots SET state = ? WHERE group_id = ? AND slot = ?",
        [(FILLED, place.group_id, place.slot) for place in places],
    )


def complete(db: Database, group_ids: Iterable[int]) -> list[int]:
    """Of these, the open groups that are full become ready. Returns them."""
    full = [
        row[0]
        for row in db.rows(
            "SELECT group_id FROM groups WHERE state = ? AND group_id IN (SELECT value FROM json_each(?)) AND NOT EXISTS "
            "(SELECT 1 FROM slots WHERE slots.group_id = groups.group_id AND slots.state <> ?) ORDER BY group_id",
            OPEN,
            ids(group_ids),
            FILLED,
        )
    ]
    if full:
        set_state(db, full, OPEN, READY)
        db.execute(
            "UPDATE groups SET (oldest_version, newest_version, tokens) = "
            "(SELECT coalesce(min(version), -1), coalesce(max(version), -1), coalesce(sum(past - first), 0) "
            "FROM trajectories JOIN segments USING (lease_id) WHERE trajectories.group_id = groups.group_id AND fate = ?) "
            "WHERE group_id IN (SELECT value FROM json_each(?))",
            Fate.WAITING,
            ids(full),
        )
    return full


def drop_leases(
    db: Database, settings: LedgerSettings, lease_ids: Iterable[int], state: LeaseState, reason: str, now: float
) -> list[int]:
    """End leases in flight and free their places. An expiry counts against the place, a return does not."""
    ended = fates.end_leases(db, lease_ids, state, reason)
    _lose(db, settings, ended.values(), now, counted=state is LeaseState.EXPIRED)
    return sorted(ended)


def drop_trajectories(
    db: Database, settings: LedgerSettings, lease_ids: Iterable[int], reason: str, now: float, *, counted: bool = True
) -> list[int]:
    """Discard waiting trajectories and free their places. `counted`: whether that counts against the place."""
    discarded = fates.discard_trajectories(db, lease_ids, reason)
    _lose(db, settings, discarded.values(), now, counted=counted)
    return sorted(discarded)


def discard(db: Database, group_ids: Iterable[int], reason: str, now: float) -> int:
    """Give up open and ready groups: what was received is discarded, what is in flight ends as expired."""
    live = [group for group, state in states(db, group_ids).items() if state in (OPEN, READY)]
    for state in (OPEN, READY):
        chosen = [group for group, found in states(db, live).items() if found == state]
        set_state(db, chosen, state, DISCARDED, reason)
    wanted = ids(live)
    leases = [
        row[0]
        for row in db.rows("SELECT lease_id FROM leases WHERE group_id IN (SELECT value FROM json_each(?))", wanted)
    ]
    fates.end_leases(db, leases, LeaseState.EXPIRED, reason)
    fates.discard_trajectories(db, leases, reason)
    db.execute("UPDATE slots SET state = ? WHERE group_id IN (SELECT value FROM json_each(?))", CLOSED, wanted)
    for group in live:
        db.event(now, "group_discarded", group, reason)
    return len(live)


def _lose(db: Database, settings: LedgerSettings, places: Iterable[Place], now: float, *, counted: bool) -> None:
    """Free places of groups that are still wanted; give up a group that has lost one place too often."""
    lost = sorted(places)
    found = states(db, {place.group_id for place in lost})
    live = [place for place in lost if found.get(place.group_id) in (OPEN, READY)]
    reopened = {place.group_id for place in live if found[place.group_id] == READY}
    set_state(db, reopened, READY, OPEN)
    db.execute_many(
        "UPDATE slots SET state = ?, losses = losses + ? WHERE group_id = ? AND slot = ?",
        [(FREE, int(counted), place.group_id, place.slot) for place in live],
    )
    hopeless = db.rows(
        "SELECT DISTINCT group_id FROM slots WHERE state = ? AND losses >= ? AND group_id IN (SELECT value FROM json_each(?))",
        FREE,
        settings.max_attempts,
        ids({place.group_id for place in live}),
    )
    discard(db, [row[0] for row in hopeless], Reason.GROUP_INCOMPLETE, now)
