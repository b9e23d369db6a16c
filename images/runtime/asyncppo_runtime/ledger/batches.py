"""Batches: which groups can be trained on, who the stragglers are, and their trajectories with old log-probs. Reads only.

Does not own which of them make a batch (the learner's selection) nor the marks a step leaves (`versions.py`).
"""

from collections.abc import Iterable

from asyncppo.sync.columns import SealRule
from asyncppo_runtime.ledger import groups
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.inspection import stored
from asyncppo_runtime.ledger.records import OpenGroup, ReadyGroup, StoredTrajectory

# Both words, so that the partial index of live groups is used.
LIVE_OPEN = "state IN ('Open', 'Ready') AND state = 'Open'"
LIVE_READY = "state IN ('Open', 'Ready') AND state = 'Ready'"


def ready_groups(db: Database) -> list[ReadyGroup]:
    """Complete, untrained groups: oldest version first, then by id."""
    unscored: dict[int, dict[int, int]] = {}
    for group, version, count in db.rows(
        "SELECT group_id, segments.version, count(*) FROM segments JOIN leases USING (lease_id) "
        "WHERE segments.state = 'Unscored' GROUP BY group_id, segments.version"
    ):
        unscored.setdefault(group, {})[version] = count
    rows = db.rows(
        "SELECT group_id, oldest_version, newest_version, tokens FROM groups "
        f"WHERE {LIVE_READY} ORDER BY oldest_version, group_id"
    )
    return [
        ReadyGroup(group, oldest, newest, tokens, unscored.get(group, {})) for group, oldest, newest, tokens in rows
    ]


def open_groups(db: Database) -> list[OpenGroup]:
    """Incomplete groups, by id."""
    live = f"SELECT group_id FROM groups WHERE {LIVE_OPEN}"
    recorded: dict[int, int] = dict(
        db.rows(
            "SELECT leases.group_id, min(segments.version) FROM leases JOIN segments USING (lease_id) "
            "LEFT JOIN trajectories USING (lease_id) "
            f"WHERE leases.group_id IN ({live}) AND (leases.state = 'InFlight' OR fate = 'Waiting') GROUP BY leases.group_id"
        )
    )
    granted: dict[int, int] = dict(
        db.rows(
            f"SELECT group_id, min(version) FROM leases WHERE state = 'InFlight' AND group_id IN ({live}) GROUP BY group_id"
        )
    )
    # Where versions are flushed, whatever is unrecorded of a sealed version cannot come in any more.
    sealed = int(db.fact("sealed_version")) if SealRule(db.fact("seal_rule")).flushes else -1
    rows = db.rows(
        "SELECT group_id, sum(state = 'Filled'), sum(state = 'Leased'), sum(state = 'Free') FROM slots "
        f"WHERE group_id IN ({live}) GROUP BY group_id ORDER BY group_id"
    )
    return [
        OpenGroup(
            group,
            recorded.get(group, -1),
            max(granted[group], sealed + 1) if group in granted else -1,
            filled,
            leased,
            free,
        )
        for group, filled, leased, free in rows
    ]


def load_groups(db: Database, group_ids: Iterable[int]) -> list[list[StoredTrajectory]]:
    """The kept trajectories of ready groups, in the order asked for, each by place."""
    wanted = list(group_ids)
    found = groups.states(db, wanted)
    missing = [group for group in wanted if found.get(group) != groups.READY]
    if missing:
        raise LedgerRefusedError(
            "GroupNotReady", f"groups {missing[:8]} are {[found.get(group) for group in missing[:8]]}, not ready"
        )
    leases = [
        row[0]
        for row in db.rows(
            "SELECT lease_id FROM trajectories WHERE fate = 'Waiting' AND group_id IN (SELECT value FROM json_each(?))",
            ids(wanted),
        )
    ]
    by_group: dict[int, list[StoredTrajectory]] = {group: [] for group in wanted}
    for trajectory in stored(db, leases):
        by_group[trajectory.group_id].append(trajectory)
    return [sorted(by_group[group], key=lambda one: one.slot) for group in wanted]
