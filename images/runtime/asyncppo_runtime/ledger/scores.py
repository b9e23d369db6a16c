"""Scores: old log-probs for recorded segments, each segment scored or discarded exactly once. Owns that ending.

Does not own how a score is computed (`asyncppo_runtime.old_logprobs`); in exact modes it owns that the scorer held the weights that
sampled: version and train hash are compared for every segment.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from asyncppo.wire.experience import Trajectory
from asyncppo_runtime.ledger import counters, groups
from asyncppo_runtime.ledger.database import Database, Row, ids
from asyncppo_runtime.ledger.fates import spoil
from asyncppo_runtime.ledger.records import (
    FALLBACK_KIND,
    LedgerSettings,
    Reason,
    Score,
    ScoreItem,
    ScoreReceipt,
    SegmentKey,
    SegmentState,
    UnscoredSegment,
)

ITEM_COLUMNS = "lease_id, position, digest, group_id, segments.version, weights_hash, first, past, behavior"
BODY = msgspec.msgpack.Decoder(Trajectory)


def unscored(db: Database, version: int | None, limit: int) -> list[ScoreItem]:
    """Recorded, unscored segments of `version` or of any, by version, lease and index."""
    rows = db.rows(
        f"SELECT {ITEM_COLUMNS} FROM segments JOIN leases USING (lease_id) "
        "WHERE segments.state = 'Unscored' AND (?1 IS NULL OR segments.version = ?1) "
        "ORDER BY segments.version, lease_id, position LIMIT ?2",
        version,
        limit,
    )
    return _items(db, rows)


def unscored_keys(db: Database, group_ids: Iterable[int] | None) -> list[UnscoredSegment]:
    """Unscored segments of these groups, or of all, by version, lease and index; without their contexts."""
    rows = db.rows(
        "SELECT lease_id, position, digest, segments.version, weights_hash, past FROM segments JOIN leases USING (lease_id) "
        "WHERE segments.state = 'Unscored' AND (?1 IS NULL OR group_id IN (SELECT value FROM json_each(?1))) "
        "ORDER BY segments.version, lease_id, position",
        None if group_ids is None else ids(group_ids),
    )
    return [
        UnscoredSegment(SegmentKey(lease, index, digest), version, weights_hash, past)
        for lease, index, digest, version, weights_hash, past in rows
    ]


def items(db: Database, keys: Iterable[SegmentKey]) -> list[ScoreItem]:
    """Those of these segments that are there under the same digest and unscored, by version, lease and index."""
    wanted = set(keys)
    rows = db.rows(
        f"SELECT {ITEM_COLUMNS} FROM segments JOIN leases USING (lease_id) "
        "WHERE segments.state = 'Unscored' AND lease_id IN (SELECT value FROM json_each(?)) "
        "ORDER BY segments.version, lease_id, position",
        ids({key.lease_id for key in wanted}),
    )
    return _items(db, [row for row in rows if SegmentKey(*row[:3]) in wanted])


def of_groups(db: Database, group_ids: Iterable[int]) -> list[ScoreItem]:
    """The unscored segments of these groups."""
    rows = db.rows(
        f"SELECT {ITEM_COLUMNS} FROM leases JOIN segments USING (lease_id) "
        "WHERE group_id IN (SELECT value FROM json_each(?)) AND segments.state = 'Unscored' "
        "ORDER BY segments.version, lease_id, position",
        ids(group_ids),
    )
    return _items(db, rows)


def record(db: Database, settings: LedgerSettings, scores: Sequence[Score], now: float) -> ScoreReceipt:
    """Store scores; see `Ledger.record_scores`."""
    wanted = ids({score.key.lease_id for score in scores})
    known = {
        (lease, index): (digest, state, version, tokens, train_hash)
        for lease, index, digest, state, version, tokens, train_hash in db.rows(
            "SELECT lease_id, position, digest, state, segments.version, past - first, train_hash "
            "FROM segments JOIN versions USING (version) WHERE lease_id IN (SELECT value FROM json_each(?))",
            wanted,
        )
    }
    taken: dict[SegmentKey, Score] = {}
    refused: list[tuple[SegmentKey, str]] = []
    repeated = tokens = 0
    for score in scores:
        row = known.get((score.key.lease_id, score.key.index))
        stands_in = settings.fallback and score.kind == FALLBACK_KIND
        reason = _refusal(score, row, exact=settings.exact and not stands_in)
        if row is None or reason:
            refused.append((score.key, reason))
            db.counters.add(f"{counters.REFUSED}score_{reason}", 1)
            if reason != SegmentState.DISCARDED.lower():
                db.event(now, "score_refused", score.key.lease_id, f"segment {score.key.index}: {reason}")
        elif row[1] == SegmentState.SCORED or score.key in taken:
            repeated += 1
        else:
            taken[score.key] = score
            tokens += row[3]
            if stands_in:
                db.counters.add(counters.FALLBACK_TOKENS, row[3])
    db.execute_many(
        "UPDATE segments SET state = ?, old = ?, scorer_version = ?, scorer_hash = ?, kind = ? WHERE lease_id = ? AND position = ?",
        [
            (
                SegmentState.SCORED, np.asarray(score.old_logprobs, "<f8").tobytes(), score.version, score.train_hash,
                score.kind, key.lease_id, key.index,
            )
            for key, score in taken.items()
        ],
    )  # fmt: skip
    db.counters.add(counters.UNSCORED_TOKENS, -tokens)
    db.counters.add(counters.SCORED_TOKENS, tokens)
    return ScoreReceipt(len(taken), repeated, refused)


def discard(
    db: Database,
    settings: LedgerSettings,
    keys: Iterable[SegmentKey],
    reason: str,
    now: float,
    *,
    keep_trajectory: bool,
) -> int:
    """End unscored segments as discarded, and (unless `keep_trajectory`) their trajectories with them."""
    wanted = {(key.lease_id, key.index): key.digest for key in keys}
    found = [
        (lease, index, tokens)
        for lease, index, digest, tokens in db.rows(
            "SELECT lease_id, position, digest, past - first FROM segments "
            "WHERE state = 'Unscored' AND lease_id IN (SELECT value FROM json_each(?))",
            ids({lease for lease, _ in wanted}),
        )
        if wanted.get((lease, index)) == digest
    ]
    db.execute_many(
        "UPDATE segments SET state = ?, reason = ? WHERE lease_id = ? AND position = ?",
        [(SegmentState.DISCARDED, reason, lease, index) for lease, index, _ in found],
    )
    tokens = sum(count for _, _, count in found)
    db.counters.add(counters.UNSCORED_TOKENS, -tokens)
    db.counters.add(counters.DISCARDED_TOKENS + reason, tokens)
    if not keep_trajectory:
        leases = {lease for lease, _, _ in found}
        spoil(db, leases, reason)
        groups.drop_trajectories(db, settings, leases, reason, now)
    return len(found)


def _refusal(score: Score, row: Row | None, *, exact: bool) -> str:
    if row is None:
        return "unknown_segment"
    digest, state, version, tokens, train_hash = row
    if digest != score.key.digest:
        return Reason.CONFLICT
    if state == SegmentState.DISCARDED:
        return "discarded"
    if exact and score.version != version:
        return "wrong_version"
    if exact and score.train_hash != train_hash:
        return Reason.HASH_MISMATCH
    values = np.asarray(score.old_logprobs)
    return "" if values.shape == (tokens,) and bool(np.isfinite(values).all()) else Reason.MALFORMED


def _items(db: Database, rows: list[Row]) -> list[ScoreItem]:
    bodies = {
        lease: BODY.decode(body).token_ids
        for lease, body in db.rows(
            "SELECT lease_id, body FROM bodies WHERE lease_id IN (SELECT value FROM json_each(?))",
            ids({row[0] for row in rows}),
        )
    }
    return [
        ScoreItem(
            SegmentKey(lease, index, digest),
            group,
            version,
            weights_hash,
            first,
            past,
            bodies[lease][:past],
            np.frombuffer(behavior, "<f8"),
        )
        for lease, index, digest, group, version, weights_hash, first, past, behavior in rows
    ]
