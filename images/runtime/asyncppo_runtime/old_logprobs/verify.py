"""Whether a segment's old log-probs are those of the version that sampled it.

Owns the checks and their words. Does not own what is done about a refusal.

A version tag alone proves nothing: a wrong tag makes the wrong version score the segment, and both agree. Three things are compared: the
integer (segment, record, scorer), the hash the engine computed from the bytes it loaded (segment against the record's published hash), and
the hash of what the scorer holds (against the record's train hash). A forged pair of tag and hash is left; it trips the bound on the
segment's discrepancy, because old and behavior log-probs then come from different weights.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from asyncppo.api.correction import OldLogitsSpec
from asyncppo.api.training import Precision

_FULL = (Precision.FLOAT32, Precision.FLOAT64)


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
    """Finite, and |old - behavior| of each of the segment's tokens within `bound` (inclusive). Both float [n]."""
    if not bool(torch.isfinite(old_logprobs).all()):
        return Verdict(Reason.NOT_FINITE, "an old log-prob is not finite")
    if old_logprobs.numel() == 0:
        return ACCEPTED
    largest = float((old_logprobs.double() - behavior_logprobs.double()).abs().max())
    if not largest <= bound:
        return Verdict(
            Reason.MISLABELLED,
            f"|old - behavior| reaches {largest:.4g}, more than the bound {bound:.4g}: the tokens were not sampled from these weights",
        )
    return ACCEPTED


def segment_bound(spec: OldLogitsSpec, learner: Precision, engine: Precision) -> float:
    """The job's bound on |old - behavior|: as given, else 0.01 when both sides compute in full precision, else 1."""
    if spec.segment_bound is not None:
        return spec.segment_bound
    return 0.01 if learner in _FULL and engine in _FULL else 1.0


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if digest else "(none)"
