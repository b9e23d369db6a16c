"""What the ledger takes and gives, beyond the wire's own structs: settings, keys, items to score, batches, views.

Owns these shapes. Does not own how they are stored (`schema.py`) nor when they change (one module per concept).
"""

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from asyncppo.report.wording import one_line
from asyncppo.sync.columns import SealRule
from asyncppo.wire.experience import Trajectory, UploadReply
from asyncppo.wire.membership import Member, MemberState
from asyncppo.wire.versions import Canary, VersionRecord


class Reason(StrEnum):
    """Why a token or a trajectory was discarded, or an upload refused. Discards may carry further reasons of the learner's own."""

    ENVIRONMENT_TIMEOUT = "environment_timeout"
    ENVIRONMENT_ERROR = "environment_error"
    OVERLONG = "overlong"
    EMPTY = "empty"
    GROUP_INCOMPLETE = "group_incomplete"
    ZERO_VARIANCE = "zero_variance"
    STALE = "stale"
    SEALED = "sealed"
    FENCED = "fenced"
    HASH_MISMATCH = "hash_mismatch"
    UNKNOWN_VERSION = "unknown_version"
    ABANDONED_LINEAGE = "abandoned_lineage"
    LEASE_EXPIRED = "lease_expired"
    LEASE_RETURNED = "lease_returned"
    MISLABELLED = "mislabelled"
    LATE = "late"
    CONFLICT = "conflict"
    MALFORMED = "malformed"
    UNKNOWN_LEASE = "unknown_lease"
    REWARD_OUT_OF_BOUNDS = "reward_out_of_bounds"
    TOKEN_OUT_OF_VOCABULARY = "token_out_of_vocabulary"
    CONTEXT_EXCEEDED = "context_exceeded"


VIOLATIONS = frozenset({Reason.HASH_MISMATCH, Reason.UNKNOWN_VERSION, Reason.CONFLICT, Reason.MISLABELLED})
"""Reasons that mean somebody was wrong about a version, not merely late; a receipt with one of them fences its sender."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trajectory may hold for a step to survive it. reward_bound: of its reward's size. context_length: of its token ids.
    vocabulary: every id is below it, the rows of the model's embedding."""

    reward_bound: float = math.inf
    context_length: int = 1 << 31
    vocabulary: int = 1 << 31


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """What a ledger is opened with; all of it follows from the job.

    job_uid, fingerprint: identity; another one is refused. seed: of tasks and sampling. max_attempts: grants of one member of a
    group that may be lost before the group is discarded. exact: scores must come from the segment's own version.
    discard_overlong: trajectories that end as `overlong` are discarded. fallback: scores of kind FALLBACK_KIND are taken in exact
    modes too; they are counted. limits: what is judged at the door.
    """

    job_uid: str
    fingerprint: str
    group_size: int
    seed: int
    seal_rule: SealRule
    exact: bool
    max_attempts: int = 3
    discard_overlong: bool = False
    fallback: bool = False
    limits: Limits = Limits()


FALLBACK_KIND = "fallback_recompute"
"""How a score was made that stands in for an exact one that cannot be had; its version is -1: it is nobody's exact value."""


class LeaseState(StrEnum):
    """A lease ends in exactly one of the last three."""

    IN_FLIGHT = "InFlight"
    RECEIVED = "Received"
    EXPIRED = "Expired"
    RETURNED = "Returned"


class Fate(StrEnum):
    """What became of a trajectory (received ones only)."""

    WAITING = "Waiting"
    TRAINED = "Trained"
    DISCARDED = "Discarded"


class SegmentState(StrEnum):
    """What became of a segment's tokens."""

    UNSCORED = "Unscored"
    SCORED = "Scored"
    DISCARDED = "Discarded"


@dataclass(frozen=True, slots=True, order=True)
class SegmentKey:
    """One segment: the key that makes everything about it idempotent. `digest` as `wire.experience.segment_digest`."""

    lease_id: int
    index: int
    digest: str


@dataclass(frozen=True, slots=True)
class UnscoredSegment:
    """A segment without a score, without its context: what a queue needs to know. end: tokens its forward takes."""

    key: SegmentKey
    version: int
    weights_hash: str
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class ScoreItem:
    """A segment to be scored under `version`: a forward over `token_ids` (prefix and own ids, [end]) gives the log-probs of
    tokens [start, end). behavior_logprobs: float64 [end - start]."""

    key: SegmentKey
    group_id: int
    version: int
    weights_hash: str
    start: int
    end: int
    token_ids: list[int]
    behavior_logprobs: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """The answer to a ScoreItem. old_logprobs: float [end - start], stored as float64 without loss.

    version, train_hash: of the weights the scorer holds, checked against the segment's. kind: how it was made
    (exact_interrupt, exact_snapshot, exact_dedicated, recompute, rollout, ewma, loglinear, linear, fallback_recompute).
    """

    key: SegmentKey
    old_logprobs: NDArray[np.float64] | NDArray[np.float32]
    version: int
    train_hash: str
    kind: str


@dataclass(frozen=True, slots=True)
class ScoreReceipt:
    """How many scores were new, how many were there already, and which were refused (reason: unknown_segment, conflict,
    discarded, wrong_version, hash_mismatch, malformed)."""

    recorded: int
    known: int
    refused: list[tuple[SegmentKey, str]] = field(default_factory=list)


LONGEST_TEXT = 300
"""Of what is kept of a rollout's words."""
MOST_CAUSES = 16
_CLASS = re.compile(r"[A-Za-z_][\w.]*(?=:)")


class Cause(msgspec.Struct, frozen=True):
    """One kind of failure: its reason, how often, and the newest text of it."""

    reason: str
    count: int
    example: str


class FailureRun(msgspec.Struct, frozen=True):
    """in_a_row: failures since the last good trajectory. causes: of those, by kind (reason and class of error), at most
    MOST_CAUSES. last: the newest text ever, which a good trajectory leaves."""

    in_a_row: int = 0
    causes: dict[str, Cause] = {}
    last: str = ""

    @property
    def commonest(self) -> Cause:
        """The commonest kind of the run; an empty one before the first."""
        return max(self.causes.values(), key=lambda cause: cause.count, default=Cause("", 0, ""))

    def after_failure(self, reason: str, text: str) -> "FailureRun":
        """One more."""
        shown = one_line(text, LONGEST_TEXT)
        named = _CLASS.match(shown)
        kind = f"{reason} {named.group() if named else ''}"
        if kind not in self.causes and len(self.causes) >= MOST_CAUSES:
            kind = "others"
        before = self.causes.get(kind, Cause(reason, 0, ""))
        causes = {**self.causes, kind: Cause(before.reason, before.count + 1, shown)}
        return FailureRun(self.in_a_row + 1, causes, shown or self.last)

    def after_success(self) -> "FailureRun":
        """A good one: the run is over."""
        return FailureRun(last=self.last)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receipt did. reply goes back to the sender. received: leases whose trajectory is new. complete: groups it completed.

    violations: why segments were refused that were wrong rather than late (see VIOLATIONS); the sender was fenced for it.
    failures: trajectories in a row that were worth nothing, this upload's included. in_flight: leases under way after it.
    """

    reply: UploadReply
    received: list[int]
    complete: list[int]
    violations: list[str] = field(default_factory=list)
    failures: FailureRun = field(default_factory=FailureRun)
    in_flight: int = 0

    @property
    def fenced(self) -> bool:
        """Whether the sender was fenced."""
        return bool(self.violations)


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat. lost: leases the member named that are not (or no longer) its own: stop working on them."""

    state: MemberState
    incarnation: int
    lost: list[int]


@dataclass(frozen=True, slots=True)
class LedgerView:
    """Where the job is, all durable.

    epoch, owner, open, sealed, fenced: of the last epoch handed out. members: while it is open those frozen at its begin,
    narrowed by fencing; else those the next begin would freeze.
    version: newest published (resident) version, -1 before the first. announced: the version rollouts are on (or, with none
    joined yet, will be given), which the next seal ends. target: what the open epoch moves to; -1 until it is published.
    stepped: the target is published. sealed_version: no token of it or older can be sampled any more; columns that flush take
    none that is not recorded already. record, canary: of the newest version. announced_record: what a member outside a sync must be on.
    """

    job_uid: str
    epoch: int
    owner: str
    open: bool
    sealed: bool
    version: int
    announced: int
    target: int
    stepped: bool
    sealed_version: int
    lineage: int
    members: list[Member]
    fenced: list[str]
    record: VersionRecord | None
    announced_record: VersionRecord | None
    canary: Canary | None

    @property
    def unannounced(self) -> bool:
        """A version is published that no finished epoch has brought to the rollouts: a sync is wanted."""
        return self.version != self.announced


@dataclass(frozen=True, slots=True)
class ManifestGaps:
    """Manifest entries that stand in the way of a seal, as sets. unrecorded: not in the ledger, and could be. unscored: there,
    not scored. conflicting: there under another digest."""

    unrecorded: list[SegmentKey]
    unscored: list[SegmentKey]
    conflicting: list[SegmentKey]


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One finished epoch. seconds: phase → seconds, as the coordinator measured them."""

    epoch: int
    coordinator: str
    sealed_version: int
    target: int
    members: int
    fenced: int
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class ReadyGroup:
    """A group whose every member is received and kept. oldest_version, newest_version: over its sampled tokens.

    unscored: version → segments not scored yet; empty means it can be loaded now.
    """

    group_id: int
    oldest_version: int
    newest_version: int
    tokens: int
    unscored: dict[int, int]


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """A group that is not complete. recorded_version: oldest version among its recorded tokens (-1: none).

    granted_version: the oldest version an unrecorded token of its leases in flight can still carry (-1: none in flight).
    missing: members neither in flight nor received.
    """

    group_id: int
    recorded_version: int
    granted_version: int
    received: int
    in_flight: int
    missing: int

    @property
    def oldest_version(self) -> int:
        """No token of the group is, or can become, older than this; -1 when it has neither tokens nor leases."""
        return min((version for version in (self.recorded_version, self.granted_version) if version >= 0), default=-1)


@dataclass(frozen=True, slots=True, eq=False)
class StoredSegment:
    """A segment and what became of it. old_logprobs: float64 [tokens], None unless scored; behavior_logprobs likewise, None when
    pruned."""

    key: SegmentKey
    start: int
    end: int
    version: int
    weights_hash: str
    state: SegmentState
    reason: str
    behavior_logprobs: NDArray[np.float64] | None
    old_logprobs: NDArray[np.float64] | None
    scorer_version: int
    scorer_hash: str
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class StoredTrajectory:
    """A trajectory as the ledger holds it. `trajectory` is what the rollout sent (its segments' log-probs included), None when
    pruned. trained_version: the version made from it, -1 if none. oldest_version: over its segments, -1 without any. error: what the
    rollout said of one; of a pruned trajectory only where it was asked for alone."""

    lease_id: int
    group_id: int
    slot: int
    attempt: int
    member: str
    lease_state: LeaseState
    fate: Fate | None
    reason: str
    reward: float
    end_reason: str
    tokens: int
    trained_version: int
    trajectory: Trajectory | None
    segments: list[StoredSegment]
    error: str = ""

    @property
    def oldest_version(self) -> int:
        """Oldest version among its segments; -1 without any."""
        return min((segment.version for segment in self.segments), default=-1)


@dataclass(frozen=True, slots=True)
class TrajectorySummary:
    """One line of a listing."""

    lease_id: int
    group_id: int
    member: str
    lease_state: LeaseState
    fate: Fate | None
    reason: str
    reward: float
    end_reason: str
    tokens: int
    trained_version: int


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A published version. abandoned: a later restore left it behind. announced: an epoch that moved to it is finished (or it
    was the first). metrics: whatever the learner stored with it."""

    record: VersionRecord
    abandoned: bool
    announced: bool
    trained_groups: int
    metrics: bytes


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A committed checkpoint. path: relative to the learner's folder, as it was given."""

    version: int
    lineage: int
    path: str
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. next_version, lineage: what the learner publishes next must carry; parent is the checkpoint's version.

    republish: the checkpoint's weights must be published (reason `restore`) as `next_version`, because later versions were left
    behind; False when the checkpoint was the newest version and nothing changed. undone: trajectories that were trained after
    it and wait again. discarded: trajectories discarded as `abandoned_lineage`.
    """

    version: int
    next_version: int
    lineage: int
    republish: bool
    undone: int
    discarded: int


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger's history. `at` as passed in by the caller."""

    event_id: int
    at: float
    kind: str
    subject: str
    detail: str
