"""Whether a segment's old log-probs are those of the version that sampled it.

Owns the checks and their words. Does not own what is done about a refusal.

A version tag alone proves nothing: a wrong tag makes the wrong version score the segment, and both agree. Three things are compared: the
integer (segment, record, scorer), the hash the engine computed from the bytes it loaded (segment against the record's published hash), and
the hash of what the scorer holds (against the record's train hash). A forged pair of tag and hash is left,
or an engine that computes with other weights than it hashed: then old and behavior log-probs come from different weights, and differ on
most tokens of the segment. That is what the values are asked. A single token proves nothing: in bfloat16 an honest, improbable one may be
nats apart. Nor can values tell versions apart that differ by less than the engine's rounding (`benchmarks/segment_check.py`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from asyncppo.api.correction import OldLogitsSpec
from asyncppo.api.training import Precision

_FULL = (Precision.FLOAT32, Precision.FLOAT64)

FULL_BOUND = 0.001
ROUNDED_BOUND = 0.1
PRIOR_TOKENS = 99


class Identity(Protocol):
    """What a version's record says of it (`asyncppo.wire.versions.VersionRecord`)."""

    @property
    def version(self) -> int: ...
    @property
    def train_hash(self) -> str: ...
    @property
    def published_hash(self) -> str: ...


class Reason(StrEnum):
    """Why old log-probs are refused."""

    UNKNOWN_VERSION = "unknown_version"
    HASH_MISMATCH = "hash_mismatch"
    WRONG_VERSION = "wrong_version"
    WRONG_WEIGHTS = "wrong_weights"
    NOT_FINITE = "not_finite"
    MISLABELLED = "mislabelled"


@dataclass(frozen=True)
class Verdict:
    """reason is None when accepted; message says what was compared."""

    reason: Reason | None = None
    message: str = ""

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against it."""
        return self.reason is None


ACCEPTED = Verdict()


def verify_segment(version: int, weights_hash: str, record: Identity | None) -> Verdict:
    """The segment's tag and engine hash against the version's record."""
    if record is None or record.version != version:
        return Verdict(Reason.UNKNOWN_VERSION, f"no record of version {version}, which the segment says sampled it")
    if weights_hash != record.published_hash:
        return Verdict(
            Reason.HASH_MISMATCH,
            f"sampled from weights {_short(weights_hash)}; version {version} was published as {_short(record.published_hash)}",
        )
    return ACCEPTED


def verify_scorer(record: Identity, held_version: int, held_train_hash: str) -> Verdict:
    """What the scorer holds against the version's record."""
    if held_version != record.version:
        return Verdict(Reason.WRONG_VERSION, f"scored by version {held_version}, sampled by {record.version}")
    if held_train_hash != record.train_hash:
        return Verdict(
            Reason.WRONG_WEIGHTS,
            f"the scorer holds weights {_short(held_train_hash)}, version {record.version} is {_short(record.train_hash)}",
        )
    return ACCEPTED


def verify_scores(old_logprobs: Tensor, behavior_logprobs: Tensor, bound: float) -> Verdict:
    """Finite, and `typical_difference` of the segment's tokens within `allowed_difference` (inclusive). Both float [n]."""
    if not bool(torch.isfinite(old_logprobs).all()):
        return Verdict(Reason.NOT_FINITE, "an old log-prob is not finite")
    if old_logprobs.numel() == 0:
        return ACCEPTED
    if not bool(torch.isfinite(behavior_logprobs).all()):
        return Verdict(Reason.MISLABELLED, "a log-prob of the engine's is not finite")
    typical = typical_difference(old_logprobs, behavior_logprobs)
    allowed = allowed_difference(bound, old_logprobs.numel())
    if not typical <= allowed:
        return Verdict(
            Reason.MISLABELLED,
            f"|old - behavior| is typically {typical:.4g} over the segment's {old_logprobs.numel()} tokens, more than the {allowed:.4g} "
            f"that oldLogits.segmentBound {bound:.4g} allows: the tokens were not sampled from these weights",
        )
    return ACCEPTED


def typical_difference(old_logprobs: Tensor, behavior_logprobs: Tensor) -> float:
    """The mean of |old - behavior| without its largest quarter (rounded down): outliers do not move it, other weights do. Nats; [n], n > 0.

    Not the median: of a trained policy's tokens more than half may be certain, and those are alike under any version.
    """
    apart = (old_logprobs.double() - behavior_logprobs.double()).abs().sort().values
    return float(apart[: apart.numel() - apart.numel() // 4].mean())


def allowed_difference(bound: float, tokens: int) -> float:
    """How large the typical difference of a segment of so many tokens may be: bound (1 + 99/tokens).

    As if 99 tokens without any difference came before it: a few tokens with outliers among them are no evidence, many are.
    """
    return bound * (1.0 + PRIOR_TOKENS / tokens)


def segment_bound(spec: OldLogitsSpec, learner: Precision, engine: Precision) -> float:
    """The job's bound on the typical |old - behavior| of long segments: as given, else by the precisions of both sides."""
    if spec.segment_bound is not None:
        return spec.segment_bound
    return FULL_BOUND if learner in _FULL and engine in _FULL else ROUNDED_BOUND


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if digest else "(none)"
