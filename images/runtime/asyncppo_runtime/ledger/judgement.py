"""What an upload is worth, decided without writing anything. Pure: owns the rules of receipt; does not own rows.

A segment is taken only if its version was announced, its lease is no younger than it, its hash is the published one, and its version
is neither abandoned nor sealed (sealed: in columns that flush, or for a sender that was fenced since it got the lease).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from asyncppo.wire.experience import Segment, Trajectory, segment_digest
from asyncppo_runtime.ledger.records import Reason

ENVIRONMENT_ENDINGS = {"environment_timeout": Reason.ENVIRONMENT_TIMEOUT, "environment_error": Reason.ENVIRONMENT_ERROR}
OVERLONG_ENDING = "overlong"
LEAST_LOGPROB, LARGEST_LOGPROB = -1e4, 1.0
"""Of a token that was sampled: float32 gives none below -104 a chance, and none is above 0 by more than rounding."""


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """What the ledger holds of a version that tokens may carry."""

    published_hash: str
    abandoned: bool


@dataclass(frozen=True, slots=True)
class Situation:
    """What judging depends on besides the segment. newest_allowed: no rollout can be on a newer version. flushes: whether the
    column hands over a version's segments before its seal. sender_incarnation: of whoever uploads."""

    versions: Mapping[int, KnownVersion]
    newest_allowed: int
    sealed_version: int
    flushes: bool
    sender_incarnation: int


@dataclass(frozen=True, slots=True)
class Holder:
    """The lease a segment belongs to: the version and the incarnation it was granted at."""

    version: int
    incarnation: int


def refusal_of(segment: Segment, lease: Holder, situation: Situation) -> str:
    """Why a new segment is discarded on arrival; '' if it is taken."""
    known = situation.versions.get(segment.version)
    if known is None or (segment.version > situation.newest_allowed and not known.abandoned):
        return Reason.UNKNOWN_VERSION
    if segment.weights_hash != known.published_hash:
        return Reason.HASH_MISMATCH
    if segment.version < lease.version:
        return Reason.MISLABELLED
    if known.abandoned:
        return Reason.ABANDONED_LINEAGE
    if segment.version <= situation.sealed_version:
        if lease.incarnation != situation.sender_incarnation:
            # Its holder was fenced meanwhile: it may have sampled on after the seal, unpaused.
            return Reason.FENCED
        # Without a flush, what was sampled before the seal arrives when its trajectory is finished.
        return Reason.SEALED if situation.flushes else ""
    return ""


def discard_reason(trajectory: Trajectory, *, sampled: bool, spoiled: str, discard_overlong: bool) -> str:
    """Why a finished trajectory is discarded on arrival; '' if it waits to be trained on. sampled: it has a segment."""
    if spoiled:
        return spoiled
    if trajectory.end_reason in ENVIRONMENT_ENDINGS:
        return ENVIRONMENT_ENDINGS[trajectory.end_reason]
    if trajectory.end_reason == OVERLONG_ENDING and discard_overlong:
        return Reason.OVERLONG
    return "" if sampled else Reason.EMPTY


@dataclass(frozen=True, slots=True)
class Span:
    """Where a segment lies: tokens [start, end), sampled under `version`."""

    index: int
    start: int
    end: int
    version: int


def malformation(trajectory: Trajectory, spans: Iterable[Span]) -> str:
    """What is wrong with the shape of an upload; '' if nothing.

    spans: of this upload and of what is recorded of its lease. By index they lie in order inside the ids with ascending
    versions; each segment has one finite and possible log-prob per token; a finished trajectory lacks no index.
    """
    for segment in trajectory.segments:
        if len(segment.logprobs) != segment.tokens:
            return f"segment {segment.index} has {segment.tokens} tokens and {len(segment.logprobs)} log-probs"
        if not all(map(math.isfinite, segment.logprobs)):
            return f"segment {segment.index} has a log-prob that is not finite"
        if segment.logprobs and not LEAST_LOGPROB <= min(segment.logprobs) <= max(segment.logprobs) <= LARGEST_LOGPROB:
            return f"segment {segment.index} has a log-prob outside [{LEAST_LOGPROB:g}, {LARGEST_LOGPROB:g}]"
    if not math.isfinite(trajectory.reward):
        return "the reward is not finite"
    ids = trajectory.token_ids
    if ids and (min(ids) < 0 or max(ids) >= 1 << 31):
        return "a token id is out of range"
    return _disorder(trajectory, sorted(spans, key=lambda span: span.index))


def _disorder(trajectory: Trajectory, spans: list[Span]) -> str:
    if len({segment.index for segment in trajectory.segments}) != len(trajectory.segments):
        return "a segment index comes twice"
    past, version = 0, -1
    for span in spans:
        if not past <= span.start < span.end or not 0 <= span.index < 1 << 31:
            return f"segment {span.index} spans [{span.start}, {span.end}), after {past}"
        if span.version < version:
            return f"segment {span.index} is of version {span.version}, the one before of {version}"
        past, version = span.end, span.version
    # A shorter partial form of what is recorded is merely old.
    reach = past if trajectory.finished else max((segment.end for segment in trajectory.segments), default=0)
    if reach > len(trajectory.token_ids):
        return f"{len(trajectory.token_ids)} ids do not reach the end of the segments, {reach}"
    if trajectory.finished and [span.index for span in spans] != list(range(len(spans))):
        return "a finished trajectory lacks a segment"
    return ""


def digests(trajectory: Trajectory) -> dict[int, str]:
    """Segment index → digest."""
    return {segment.index: segment_digest(trajectory.token_ids, segment) for segment in trajectory.segments}


def trajectory_digest(trajectory: Trajectory) -> str:
    """Names a finished trajectory: ids, ending and reward. Its segments have digests of their own."""
    h = hashlib.sha256()
    h.update(f"{trajectory.end_reason}|{trajectory.reward!r}|{len(trajectory.token_ids)}|".encode())
    h.update(np.asarray(trajectory.token_ids, "<i8").tobytes())
    return h.hexdigest()[:16]
