"""Looking at what is kept: whole trajectories, listings, history. Reads only; owns how rows become what `records.py` describes."""

from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from asyncppo.wire.experience import Segment, Trajectory
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.pruning import ERROR_EVENT
from asyncppo_runtime.ledger.records import (
    Event,
    Fate,
    LeaseState,
    SegmentKey,
    SegmentState,
    StoredSegment,
    StoredTrajectory,
    TrajectorySummary,
)

BODY = msgspec.msgpack.Decoder(Trajectory)
IN = "IN (SELECT value FROM json_each(?))"


def stored(db: Database, lease_ids: Iterable[int]) -> list[StoredTrajectory]:
    """Leases and everything known of them, by id."""
    wanted = ids(lease_ids)
    bodies = {
        lease: BODY.decode(body)
        for lease, body in db.rows(f"SELECT lease_id, body FROM bodies WHERE lease_id {IN}", wanted)
    }
    segments: dict[int, list[StoredSegment]] = {}
    for (
        lease,
        index,
        digest,
        first,
        past,
        version,
        weights_hash,
        state,
        reason,
        scorer,
        scorer_hash,
        kind,
        behavior,
        old,
    ) in db.rows(f"SELECT * FROM segments WHERE lease_id {IN} ORDER BY lease_id, position", wanted):
        key = SegmentKey(lease, index, digest)
        segments.setdefault(lease, []).append(
            StoredSegment(
                key, first, past, version, weights_hash, SegmentState(state), reason, _floats(behavior), _floats(old),
                scorer, scorer_hash, kind,
            )
        )  # fmt: skip
    rows = db.rows(
        "SELECT lease_id, leases.group_id, slot, attempt, member, state, fate, reason, reward, end_reason, tokens, trained_version "
        f"FROM leases LEFT JOIN trajectories USING (lease_id) WHERE lease_id {IN} ORDER BY lease_id",
        wanted,
    )
    return [
        StoredTrajectory(
            lease,
            group,
            slot,
            attempt,
            member,
            LeaseState(state),
            Fate(fate) if fate else None,
            reason or "",
            reward or 0.0,
            end_reason or "",
            tokens if fate else sum(one.end - one.start for one in segments.get(lease, [])),
            trained if fate else -1,
            _whole(bodies.get(lease), segments.get(lease, [])),
            segments.get(lease, []),
            bodies[lease].error if lease in bodies else "",
        )
        for lease, group, slot, attempt, member, state, fate, reason, reward, end_reason, tokens, trained in rows
    ]


def trajectory(db: Database, lease_id: int) -> StoredTrajectory | None:
    """One lease and everything known of it."""
    found = next(iter(stored(db, [lease_id])), None)
    if found is None or found.trajectory is not None or found.fate is not Fate.DISCARDED:
        return found
    said = db.row("SELECT detail FROM events WHERE kind = ? AND subject = ?", ERROR_EVENT, f"{lease_id}")
    return replace(found, error=said[0]) if said else found


def trajectories(db: Database, after: int, limit: int, state: LeaseState | None) -> list[TrajectorySummary]:
    """A listing by lease id."""
    rows = db.rows(
        "SELECT lease_id, leases.group_id, member, state, fate, reason, reward, end_reason, tokens, trained_version "
        "FROM leases LEFT JOIN trajectories USING (lease_id) "
        "WHERE lease_id > ?1 AND (?2 IS NULL OR state = ?2) ORDER BY lease_id LIMIT ?3",
        after,
        state,
        limit,
    )
    return [
        TrajectorySummary(
            lease, group, member, LeaseState(found), Fate(fate) if fate else None, reason or "", reward or 0.0, end_reason or "",
            tokens or 0, trained if fate else -1,
        )
        for lease, group, member, found, fate, reason, reward, end_reason, tokens, trained in rows
    ]  # fmt: skip


def events(db: Database, after: int, limit: int) -> list[Event]:
    """The history, from the event after `after`."""
    rows = db.rows(
        "SELECT event_id, at, kind, subject, detail FROM events WHERE event_id > ? ORDER BY event_id LIMIT ?",
        after,
        limit,
    )
    return [Event(*row) for row in rows]


def _whole(body: Trajectory | None, segments: list[StoredSegment]) -> Trajectory | None:
    if body is None:
        return None
    return msgspec.structs.replace(
        body,
        segments=[
            Segment(one.key.index, one.start, one.end, one.version, one.weights_hash, one.behavior_logprobs.tolist())
            for one in segments
            if one.behavior_logprobs is not None
        ],
    )


def _floats(blob: bytes | None) -> NDArray[np.float64] | None:
    return None if blob is None else np.frombuffer(blob, "<f8")
