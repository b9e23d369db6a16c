"""How leases, trajectories and tokens end. Owns the three endings and their counts; does not own what an ending means for the group.

Every function takes only what is still undecided, so that each ends exactly once however often it is asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from asyncppo_runtime.ledger import counters
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.records import Fate, LeaseState, SegmentState


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """One member's place in a group."""

    group_id: int
    slot: int


ENDING_COUNTS = {LeaseState.EXPIRED: counters.EXPIRED, LeaseState.RETURNED: counters.RETURNED}


def end_leases(db: Database, lease_ids: Iterable[int], state: LeaseState, reason: str) -> dict[int, Place]:
    """Those in flight end as `state` (expired or returned); their unscored tokens are discarded. Lease → place, of those ended."""
    wanted = ids(lease_ids)
    ended = {
        lease: Place(group, slot)
        for lease, group, slot in db.rows(
            "SELECT lease_id, group_id, slot FROM leases WHERE state = ? AND lease_id IN (SELECT value FROM json_each(?))",
            LeaseState.IN_FLIGHT,
            wanted,
        )
    }
    if ended:
        db.execute("UPDATE leases SET state = ? WHERE lease_id IN (SELECT value FROM json_each(?))", state, ids(ended))
        db.counters.add(counters.IN_FLIGHT, -len(ended))
        db.counters.add(ENDING_COUNTS[state], len(ended))
        discard_unscored(db, ended, reason)
    return ended


def discard_trajectories(db: Database, lease_ids: Iterable[int], reason: str) -> dict[int, Place]:
    """Those waiting are discarded, with their unscored tokens. Lease → place, of those discarded."""
    found = db.rows(
        "SELECT lease_id, leases.group_id, slot FROM trajectories JOIN leases USING (lease_id) "
        "WHERE fate = ? AND lease_id IN (SELECT value FROM json_each(?))",
        Fate.WAITING,
        ids(lease_ids),
    )
    discarded = {lease: Place(group, slot) for lease, group, slot in found}
    if discarded:
        db.execute(
            "UPDATE trajectories SET fate = ?, reason = ? WHERE lease_id IN (SELECT value FROM json_each(?))",
            Fate.DISCARDED,
            reason,
            ids(discarded),
        )
        db.counters.add(counters.WAITING, -len(discarded))
        db.counters.add(counters.DISCARDED + reason, len(discarded))
        discard_unscored(db, discarded, reason)
    return discarded


def spoil(db: Database, lease_ids: Iterable[int], reason: str) -> None:
    """Leases in flight whose trajectory cannot be trained on any more: it will be discarded when it comes, and nothing of it is
    scored. The first reason stays."""
    db.execute(
        "UPDATE leases SET spoiled = ? WHERE state = ? AND spoiled = '' AND lease_id IN (SELECT value FROM json_each(?))",
        reason,
        LeaseState.IN_FLIGHT,
        ids(lease_ids),
    )
    discard_unscored(db, lease_ids, reason)


def discard_unscored(db: Database, lease_ids: Iterable[int], reason: str) -> None:
    """The unscored segments of these leases are discarded."""
    wanted = ids(lease_ids)
    found = db.row(
        "SELECT sum(past - first) FROM segments WHERE state = ? AND lease_id IN (SELECT value FROM json_each(?))",
        SegmentState.UNSCORED,
        wanted,
    )
    tokens = found[0] if found else None
    if tokens:
        db.execute(
            "UPDATE segments SET state = ?, reason = ? WHERE state = ? AND lease_id IN (SELECT value FROM json_each(?))",
            SegmentState.DISCARDED,
            reason,
            SegmentState.UNSCORED,
            wanted,
        )
        db.counters.add(counters.UNSCORED_TOKENS, -tokens)
        db.counters.add(counters.DISCARDED_TOKENS + reason, tokens)
