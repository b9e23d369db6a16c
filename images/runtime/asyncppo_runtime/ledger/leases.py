"""Leases: the right to produce one trajectory attempt. Owns granting, giving back, expiring, and the clock they run on.

Does not own what a lease's trajectory is worth (`receipts.py`) nor how many groups may live (the caller says).
"""

from collections.abc import Collection

from asyncppo.wire.experience import Lease, Task
from asyncppo.wire.membership import Member, MemberState
from asyncppo_runtime.ledger import counters, groups
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.epochs import SEALED, last_epoch
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import LeaseState, LedgerSettings, Reason


class LeaseClock:
    """When each lease was last heard of; it stands still while an epoch is open. In memory only: it starts anew at every opening,
    and heartbeats need not be written."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}
        self._stopped: float | None = None

    def stop(self, now: float) -> None:
        """An epoch has begun. A second stop changes nothing."""
        if self._stopped is None:
            self._stopped = now

    def go_on(self, now: float) -> None:
        """It is over: what was silent before it has been silent no longer than before it (and is no younger: a dead holder's leases
        would live for ever among frequent syncs)."""
        if self._stopped is not None:
            stood = max(0.0, now - self._stopped)
            self._heard = {lease: min(now, heard + stood) for lease, heard in self._heard.items()}
            self._stopped = None

    def renew(self, lease_ids: Collection[int], now: float) -> None:
        """Heard of now."""
        self._heard.update(dict.fromkeys(lease_ids, now))

    def overdue(self, in_flight: dict[int, float], now: float) -> list[int]:
        """Of the leases in flight (id → time to live), those not heard of for longer. A lease never heard of starts now."""
        self._heard = {lease: self._heard.get(lease, now) for lease in in_flight}
        return [lease for lease, ttl in in_flight.items() if now - self._heard[lease] > ttl]


def grant(
    db: Database,
    settings: LedgerSettings,
    sender: Member,
    version: int,
    count: int,
    live_groups_allowed: int,
    ttl_seconds: float,
) -> list[Lease]:
    """Fill open groups first, then open new ones while the capacity allows."""
    if sender.state is not MemberState.READY:
        raise LedgerRefusedError("NotReady", f"{sender.name} is {sender.state}; only ready members lease")
    # Until the seal the version goes on, and in columns that step first so does sampling; a paused member does not ask.
    if last_epoch(db).state == SEALED:
        raise LedgerRefusedError("SyncActive", "a sync is past its commit point; ask again after Resume")
    announced = int(db.fact("announced"))
    if version != announced:
        raise LedgerRefusedError(
            "StaleVersion", f"the rollouts are on version {announced}, {sender.name} is on {version}"
        )
    if db.row("SELECT 1 FROM versions WHERE version = ? AND abandoned = 1", announced) is not None:
        raise LedgerRefusedError(
            "SyncActive", f"version {announced} was left behind by a restore; wait for the sync to its successor"
        )
    places = _free_places(db, count)
    lacking = -(-(count - len(places)) // settings.group_size)
    room = live_groups_allowed - groups.live_groups(db)
    if min(lacking, room) > 0:
        for _ in range(min(lacking, room)):
            groups.open_group(db, settings)
        places = _free_places(db, count)
    leases: list[Lease] = []
    rows: list[tuple[object, ...]] = []
    row = db.row("SELECT coalesce(max(lease_id), 0) FROM leases")
    lease_id = int(row[0]) if row else 0
    for group_id, slot, attempts, seed in places:
        lease_id += 1
        attempt = attempts + 1
        sampling = groups.derived_seed(settings.seed, "sample", group_id, slot, attempt)
        leases.append(Lease(lease_id, group_id, attempt, Task(group_id, seed), sampling, ttl_seconds))
        rows.append(
            (
                lease_id, group_id, slot, attempt, sender.name, sender.incarnation, version, ttl_seconds, LeaseState.IN_FLIGHT,
            )
        )  # fmt: skip
    db.execute_many("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', 0)", rows)
    db.execute_many(
        "UPDATE slots SET state = ?, attempts = attempts + 1 WHERE group_id = ? AND slot = ?",
        [(groups.LEASED, group_id, slot) for group_id, slot, _, _ in places],
    )
    db.counters.add(counters.LEASED, len(leases))
    db.counters.add(counters.IN_FLIGHT, len(leases))
    return leases


def give_back(
    db: Database, settings: LedgerSettings, sender: Member, lease_ids: Collection[int], now: float
) -> list[int]:
    """End the sender's own leases as returned."""
    own = held(db, sender.name, lease_ids)
    return groups.drop_leases(db, settings, own, LeaseState.RETURNED, Reason.LEASE_RETURNED, now)


def give_back_all(db: Database, settings: LedgerSettings, name: str, now: float) -> list[int]:
    """End whatever `name` still holds as returned."""
    own = [row[0] for row in db.rows("SELECT lease_id FROM leases WHERE member = ? AND state = 'InFlight'", name)]
    return groups.drop_leases(db, settings, own, LeaseState.RETURNED, Reason.LEASE_RETURNED, now)


def expire(db: Database, settings: LedgerSettings, lease_ids: Collection[int], now: float) -> list[int]:
    """End overdue leases."""
    return groups.drop_leases(db, settings, lease_ids, LeaseState.EXPIRED, Reason.LEASE_EXPIRED, now)


def held(db: Database, name: str, lease_ids: Collection[int]) -> list[int]:
    """Of `lease_ids`, those in flight with member `name`."""
    rows = db.rows(
        "SELECT lease_id FROM leases WHERE member = ? AND state = 'InFlight' AND lease_id IN (SELECT value FROM json_each(?))",
        name,
        ids(lease_ids),
    )
    return [row[0] for row in rows]


def orphaned(db: Database, sender: Member, named: Collection[int]) -> list[int]:
    """Leases in flight that were granted to an older incarnation of `sender` and are not among `named`."""
    rows = db.rows(
        "SELECT lease_id FROM leases WHERE member = ? AND state = 'InFlight' AND incarnation < ?",
        sender.name,
        sender.incarnation,
    )
    return sorted({row[0] for row in rows} - set(named))


def in_flight(db: Database) -> dict[int, float]:
    """Leases in flight: id → time to live in seconds."""
    return dict(db.rows("SELECT lease_id, ttl FROM leases WHERE state = 'InFlight'"))


def _free_places(db: Database, count: int) -> list[tuple[int, int, int, int]]:
    return [
        (group, slot, attempts, seed)
        for group, slot, attempts, seed in db.rows(
            "SELECT slots.group_id, slot, attempts, seed FROM slots JOIN groups USING (group_id) "
            "WHERE slots.state = 'Free' ORDER BY slots.group_id, slot LIMIT ?",
            max(0, count),
        )
    ]
