"""What an upload is worth, decided without writing anything. Pure: owns the rules of receipt; does not own rows.

A segment is taken only if its version was announced, its lease is no younger than it, its hash is the published one, and its version
is neither abandoned nor sealed (sealed: in columns that flush, or for a sender that was fenced since it got the lease).
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asyncppo.wire.experience import Segment, Trajectory, segment_digest
from asyncppo_runtime.ledger.records import Limits, Reason

ENVIRONMENT_ENDINGS = {"environment_timeout": Reason.ENVIRONMENT_TIMEOUT, "environment_error": Reason.ENVIRONMENT_ERROR}
OVERLONG_ENDING = "overlong"
UNLIMITED = Limits()
LOWEST_LOGPROB, HIGHEST_LOGPROB = -1e6, 1.0
"""What float32 carries through a loss, and more than any engine's rounding or mask makes of a log-prob. NaN is not between them."""


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


def discard_reason(
    trajectory: Trajectory, *, sampled: bool, spoiled: str, discard_overlong: bool, limits: Limits = UNLIMITED
) -> tuple[str, str]:
    """Why a finished trajectory is discarded on arrival ('' if it waits to be trained on), and what is said about it. sampled: it has
    a segment."""
    if spoiled:
        return spoiled, ""
    if trajectory.end_reason in ENVIRONMENT_ENDINGS:
        return ENVIRONMENT_ENDINGS[trajectory.end_reason], trajectory.error
    if detail := reward_breach(trajectory.reward, limits):
        return Reason.REWARD_OUT_OF_BOUNDS, detail
    if trajectory.end_reason == OVERLONG_ENDING and (discard_overlong or not sampled):
        detail = "the context was full" if sampled else "the first observation alone fills the context"
        return Reason.OVERLONG if discard_overlong else Reason.EMPTY, detail
    return ("", "") if sampled else (Reason.EMPTY, f"it ended ({trajectory.end_reason}) before a token was sampled")


def reward_breach(reward: float, limits: Limits) -> str:
    """What is wrong with the reward of a trajectory; '' if nothing."""
    if math.isfinite(reward) and abs(reward) <= limits.reward_bound:
        return ""
    bound = (
        "finite" if math.isinf(limits.reward_bound) else f"finite and within ±{limits.reward_bound:g} (reward.bound)"
    )
    return f"its reward is {reward!r}; an episode's reward must be {bound}"


def token_breach(length: int, token_ids: Sequence[int], limits: Limits) -> tuple[str, str]:
    """Why these ids cannot be given to the model, ('', '') if they can: the reason and what is wrong. length: their number."""
    if length > limits.context_length:
        return (
            Reason.CONTEXT_EXCEEDED,
            f"it has {length} token ids; sampling.contextLength allows {limits.context_length}",
        )
    if token_ids and (min(token_ids) < 0 or max(token_ids) >= limits.vocabulary):
        wrong = next(one for one in token_ids if not 0 <= one < limits.vocabulary)
        return (
            Reason.TOKEN_OUT_OF_VOCABULARY,
            f"it has the token id {wrong}; the model knows 0 to {limits.vocabulary - 1}",
        )
    return "", ""


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
    versions; each segment has one log-prob per token, within the bounds; a finished trajectory lacks no index.
    """
    for segment in trajectory.segments:
        if len(segment.logprobs) != segment.tokens:
            return f"segment {segment.index} has {segment.tokens} tokens and {len(segment.logprobs)} log-probs"
        if not all(LOWEST_LOGPROB <= value <= HIGHEST_LOGPROB for value in segment.logprobs):
            return f"segment {segment.index} has a log-prob that is none (not between {LOWEST_LOGPROB:g} and 0)"
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
