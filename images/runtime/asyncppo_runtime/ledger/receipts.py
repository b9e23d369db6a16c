"""Receiving uploads: finished and partial trajectories become rows, exactly once. Owns the bookkeeping of a receipt.

Does not own the rules (`judgement.py`). An upload is read against what is there, gathered into a few lists, and written in bulk: one
transaction and a fixed number of statements, however many trajectories it carries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from asyncppo.report.wording import one_line
from asyncppo.wire.experience import Refusal, Segment, Trajectory, UploadReply, segment_digest
from asyncppo.wire.membership import Member
from asyncppo_runtime.ledger import counters, failures, groups
from asyncppo_runtime.ledger.database import Database, ids
from asyncppo_runtime.ledger.epochs import last_epoch
from asyncppo_runtime.ledger.fates import Place, spoil
from asyncppo_runtime.ledger.judgement import (
    Holder,
    KnownVersion,
    Situation,
    Span,
    digests,
    discard_reason,
    malformation,
    refusal_of,
    token_breach,
    trajectory_digest,
)
from asyncppo_runtime.ledger.members import fence
from asyncppo_runtime.ledger.records import (
    LONGEST_TEXT,
    VIOLATIONS,
    FailureRun,
    Fate,
    LeaseState,
    LedgerSettings,
    Reason,
    Receipt,
    SegmentState,
)

TURNED_AWAY = ""
"""The digest of a finished trajectory of which nothing is kept but that it came and why it was not taken."""
LONGEST_ENDING = 64


@dataclass(slots=True)
class _Recorded:
    """A segment that is there already, or will be when this upload is written."""

    span: Span
    digest: str
    weights_hash: str
    behavior: bytes | None
    refused: str


@dataclass(slots=True)
class _Lease:
    """A lease as it is, updated while the upload is read, so that one upload may speak of it twice."""

    place: Place
    member: str
    holder: Holder
    spoiled: str
    state: str
    length: int
    digest: str
    segments: dict[int, _Recorded] = field(default_factory=dict)


@dataclass(slots=True)
class _Draft:
    """What the upload will write, and answer."""

    accepted: list[int] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    segment_rows: list[tuple[object, ...]] = field(default_factory=list)
    bodies: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    finished: dict[int, Trajectory] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)
    discards: dict[str, list[int]] = field(default_factory=dict)
    spoiled: dict[str, list[int]] = field(default_factory=dict)
    late: list[int] = field(default_factory=list)
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def receive(
    db: Database, settings: LedgerSettings, sender: Member, trajectories: Sequence[Trajectory], now: float
) -> Receipt:
    """Take an upload. See `Ledger.receive`."""
    leases = _load_leases(db, trajectories)
    situation = _situation(db, settings, sender, trajectories)
    draft = _Draft()
    for trajectory in trajectories:
        lease = leases.get(trajectory.lease_id)
        if lease is None or lease.member != sender.name or lease.place.group_id != trajectory.group_id:
            _refuse(db, draft, trajectory.lease_id, -1, Reason.UNKNOWN_LEASE)
        elif lease.state in (LeaseState.EXPIRED, LeaseState.RETURNED):
            draft.late.append(trajectory.lease_id)
            _refuse(db, draft, trajectory.lease_id, -1, Reason.LATE)
        else:
            _take(db, settings, draft, lease, trajectory, situation)
    _write(db, settings, draft, leases, now)
    complete = groups.complete(db, {place.group_id for place in draft.places})
    if draft.violations:
        fence(db, sender.name, ", ".join(sorted(set(draft.violations))), now)
    run = failures.note(db, draft.outcomes) if draft.outcomes else FailureRun()
    return Receipt(
        UploadReply(draft.accepted, draft.refused),
        sorted(draft.finished),
        complete,
        draft.violations,
        run,
        db.counters.value(counters.IN_FLIGHT),
    )


def _take(
    db: Database, settings: LedgerSettings, draft: _Draft, lease: _Lease, trajectory: Trajectory, situation: Situation
) -> None:
    """One trajectory of a lease that is in flight or received: all of it is read before any of it is drafted."""
    lease_id = trajectory.lease_id
    # First of all: what does not fit the model may be too large to be read further.
    reason, detail = token_breach(len(trajectory.token_ids), trajectory.token_ids, settings.limits)
    if reason:
        _turn_away(db, draft, lease, trajectory, reason, detail)
        return
    spans = {index: recorded.span for index, recorded in lease.segments.items()}
    # A span that is recorded otherwise is not disorder but a conflict, which is worse: it is told apart below.
    spans |= {
        one.index: Span(one.index, one.start, one.end, one.version)
        for one in trajectory.segments
        if one.index not in spans
    }
    if detail := malformation(trajectory, spans.values()):
        _turn_away(db, draft, lease, trajectory, Reason.MALFORMED, detail)
        return
    if lease.state == LeaseState.RECEIVED and lease.digest == TURNED_AWAY:
        _refuse(db, draft, lease_id, -1, Reason.MALFORMED)
        return
    named = digests(trajectory)
    conflicts = _conflicts(lease, trajectory, named)
    if conflicts:
        draft.violations.append(Reason.CONFLICT)
        for index in conflicts:
            _refuse(db, draft, lease_id, index, Reason.CONFLICT)
        return
    if lease.state == LeaseState.IN_FLIGHT:
        fresh = [segment for segment in trajectory.segments if segment.index not in lease.segments]
        for segment in fresh:
            _draft_segment(db, draft, lease, lease_id, segment, named[segment.index], situation)
        if len(trajectory.token_ids) >= lease.length and (fresh or trajectory.finished):
            lease.length = len(trajectory.token_ids)
            told = one_line(trajectory.error, LONGEST_TEXT)
            body = msgspec.msgpack.encode(msgspec.structs.replace(trajectory, segments=[], error=told))
            draft.bodies[lease_id] = (lease.length, body)
        if trajectory.finished:
            _draft_finish(settings, draft, lease, trajectory)
    draft.accepted.append(lease_id)
    draft.refused += [
        Refusal(lease_id, index, lease.segments[index].refused) for index in named if lease.segments[index].refused
    ]


def _conflicts(lease: _Lease, trajectory: Trajectory, named: dict[int, str]) -> list[int]:
    """Indices at which this upload says something else than what is recorded; -1 for the trajectory as a whole."""
    found = [
        index for index, digest in named.items() if index in lease.segments and lease.segments[index].digest != digest
    ]
    if lease.state == LeaseState.RECEIVED:
        found += [index for index in named if index not in lease.segments]
        if trajectory.finished and trajectory_digest(trajectory) != lease.digest:
            found.append(-1)
        return found
    for index, recorded in lease.segments.items():
        # Recorded segments need not be sent again, but these ids must be the ones they were sampled after.
        if index not in named and recorded.span.end <= len(trajectory.token_ids) and recorded.behavior is not None:
            span, logprobs = recorded.span, np.frombuffer(recorded.behavior, "<f8").tolist()
            segment = Segment(index, span.start, span.end, span.version, recorded.weights_hash, logprobs)
            if segment_digest(trajectory.token_ids, segment) != recorded.digest:
                found.append(index)
    return found


def _draft_segment(
    db: Database, draft: _Draft, lease: _Lease, lease_id: int, segment: Segment, digest: str, situation: Situation
) -> None:
    refusal = refusal_of(segment, lease.holder, situation)
    reason = refusal or lease.spoiled
    state = SegmentState.DISCARDED if reason else SegmentState.UNSCORED
    behavior = np.asarray(segment.logprobs, "<f8").tobytes()
    span = Span(segment.index, segment.start, segment.end, segment.version)
    lease.segments[segment.index] = _Recorded(span, digest, segment.weights_hash, behavior, reason)
    draft.segment_rows.append(
        (
            lease_id,
            segment.index,
            digest,
            segment.start,
            segment.end,
            segment.version,
            segment.weights_hash,
            state,
            reason,
            behavior,
        )
    )
    db.counters.add(counters.SAMPLED_TOKENS, segment.tokens)
    db.counters.add(counters.DISCARDED_TOKENS + reason if reason else counters.UNSCORED_TOKENS, segment.tokens)
    if not refusal:
        return
    db.counters.add(counters.REFUSED + refusal, 1)
    if refusal in VIOLATIONS:
        draft.violations.append(refusal)
    if not lease.spoiled:
        lease.spoiled = refusal
        draft.spoiled.setdefault(refusal, []).append(lease_id)


def _draft_finish(settings: LedgerSettings, draft: _Draft, lease: _Lease, trajectory: Trajectory) -> None:
    lease.state = LeaseState.RECEIVED
    lease.digest = trajectory_digest(trajectory)
    draft.finished[trajectory.lease_id] = trajectory
    draft.places.append(lease.place)
    reason, detail = discard_reason(
        trajectory,
        sampled=bool(lease.segments),
        spoiled=lease.spoiled,
        discard_overlong=settings.discard_overlong,
        limits=settings.limits,
    )
    draft.outcomes.append((reason, detail))
    if reason:
        draft.discards.setdefault(reason, []).append(trajectory.lease_id)


def _turn_away(db: Database, draft: _Draft, lease: _Lease, trajectory: Trajectory, reason: str, detail: str) -> None:
    """Nothing of this upload is kept but that it came. A finished one is discarded with its reason and counts as a loss of its place:
    refused alone, its lease would be given back and granted again for ever. What is recorded of a partial one is spoiled."""
    lease_id = trajectory.lease_id
    _refuse(db, draft, lease_id, -1, reason)
    if lease.state != LeaseState.IN_FLIGHT:
        return
    if not trajectory.finished:
        if not lease.spoiled:
            lease.spoiled = reason
            draft.spoiled.setdefault(reason, []).append(lease_id)
        return
    lease.state, lease.digest = LeaseState.RECEIVED, TURNED_AWAY
    draft.finished[lease_id] = msgspec.structs.replace(trajectory, token_ids=[], segments=[])
    draft.places.append(lease.place)
    draft.discards.setdefault(reason, []).append(lease_id)
    draft.outcomes.append((reason, detail))


def _refuse(db: Database, draft: _Draft, lease_id: int, index: int, reason: str) -> None:
    draft.refused.append(Refusal(lease_id, index, reason))
    db.counters.add(counters.REFUSED + reason, 1)


def _write(db: Database, settings: LedgerSettings, draft: _Draft, leases: dict[int, _Lease], now: float) -> None:
    db.execute_many("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, -1, '', '', ?, NULL)", draft.segment_rows)
    db.execute_many(
        "INSERT OR REPLACE INTO bodies VALUES (?, ?)", [(lease, body) for lease, (_, body) in draft.bodies.items()]
    )
    db.execute_many(
        "UPDATE leases SET length = ? WHERE lease_id = ?",
        [(length, lease) for lease, (length, _) in draft.bodies.items()],
    )
    for reason, spoiled in draft.spoiled.items():
        spoil(db, spoiled, reason)
    db.execute_many(
        "INSERT INTO trajectories VALUES (?, ?, ?, ?, '', ?, ?, ?, -1)",
        [
            (
                lease_id, one.group_id, leases[lease_id].digest, Fate.WAITING, _storable(one.reward),
                one_line(one.end_reason, LONGEST_ENDING),
                sum(known.span.end - known.span.start for known in leases[lease_id].segments.values()),
            )
            for lease_id, one in draft.finished.items()
        ],
    )  # fmt: skip
    db.execute_many(
        "UPDATE leases SET state = ? WHERE lease_id = ?",
        [(LeaseState.RECEIVED, lease_id) for lease_id in draft.finished],
    )
    groups.fill(db, draft.places)
    db.counters.add(counters.IN_FLIGHT, -len(draft.finished))
    db.counters.add(counters.RECEIVED, len(draft.finished))
    db.counters.add(counters.WAITING, len(draft.finished))
    for reason, lease_ids in draft.discards.items():
        groups.drop_trajectories(db, settings, lease_ids, reason, now)
    for lease_id in draft.late:
        db.event(now, Reason.LATE, lease_id, leases[lease_id].member)


def _storable(reward: float) -> float:
    """SQLite takes a NaN for a missing value. Such a trajectory is discarded; the event and its body say why."""
    return 0.0 if math.isnan(reward) else reward


def _load_leases(db: Database, trajectories: Sequence[Trajectory]) -> dict[int, _Lease]:
    wanted = ids({trajectory.lease_id for trajectory in trajectories})
    leases = {
        lease_id: _Lease(Place(group, slot), member, Holder(version, incarnation), spoiled, state, length, digest or "")
        for lease_id, group, slot, member, incarnation, version, state, spoiled, length, digest in db.rows(
            "SELECT lease_id, leases.group_id, slot, member, incarnation, version, state, spoiled, length, digest "
            "FROM leases LEFT JOIN trajectories USING (lease_id) WHERE lease_id IN (SELECT value FROM json_each(?))",
            wanted,
        )
    }
    for lease_id, index, digest, first, past, version, weights_hash, behavior, reason in db.rows(
        "SELECT lease_id, position, digest, first, past, version, weights_hash, behavior, reason FROM segments "
        "WHERE lease_id IN (SELECT value FROM json_each(?))",
        wanted,
    ):
        span = Span(index, first, past, version)
        leases[lease_id].segments[index] = _Recorded(span, digest, weights_hash, behavior, reason)
    return leases


def _situation(db: Database, settings: LedgerSettings, sender: Member, trajectories: Sequence[Trajectory]) -> Situation:
    carried = {segment.version for trajectory in trajectories for segment in trajectory.segments}
    versions = {
        version: KnownVersion(published_hash, bool(abandoned))
        for version, published_hash, abandoned in db.rows(
            "SELECT version, published_hash, abandoned FROM versions WHERE version IN (SELECT value FROM json_each(?))",
            ids(carried),
        )
    }
    epoch = last_epoch(db)
    newest_allowed = max(int(db.fact("announced")), epoch.target if epoch.open else -1)
    return Situation(
        versions, newest_allowed, int(db.fact("sealed_version")), settings.seal_rule.flushes, sender.incarnation
    )
