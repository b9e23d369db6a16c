"""Exact scores of recorded segments, each verified: what learner and old-logit workers do with what the ledger hands them.

Owns the order: check the segment, borrow its version, check the lender, score, check the scores. Does not own weights, the ledger, nor
what follows a refusal.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from asyncppo_runtime.old_logprobs.errors import HeldWeightsError, VersionUnavailableError
from asyncppo_runtime.old_logprobs.exact_scorer import ScoreRequest, score
from asyncppo_runtime.old_logprobs.gather import Hold
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, HeldVersion
from asyncppo_runtime.old_logprobs.verify import (
    Identity,
    Reason,
    Verdict,
    verify_scorer,
    verify_scores,
    verify_segment,
)


class Span(Protocol):
    """Tokens [start, end) of the context token_ids (at least [end])."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def token_ids(self) -> Sequence[int]: ...


class SegmentToScore(Span, Protocol):
    """A recorded segment, as the ledger gives it.

    behavior_logprobs: end - start floats (numpy, tensor or list).
    """

    @property
    def version(self) -> int: ...
    @property
    def weights_hash(self) -> str: ...
    @property
    def behavior_logprobs(self) -> Any: ...


W = TypeVar("W", bound=Span)
S = TypeVar("S", bound=SegmentToScore)


@dataclass(frozen=True)
class ScoredSegment(Generic[S]):
    """old_logprobs: float [end - start] on the CPU. version, train_hash: of the weights that made them."""

    segment: S
    old_logprobs: Tensor
    version: int
    train_hash: str


@dataclass(frozen=True)
class RefusedSegment(Generic[S]):
    """A segment that gets no score, and why."""

    segment: S
    verdict: Verdict


@dataclass(frozen=True)
class Scoring(Generic[S]):
    """Every segment asked for is in exactly one of scored, refused and unavailable.

    unavailable: its version's weights cannot be had; why_unavailable says why, by version. forward_tokens: version → tokens the
    forwards took (without padding).
    """

    scored: list[ScoredSegment[S]]
    refused: list[RefusedSegment[S]]
    unavailable: list[S]
    why_unavailable: dict[int, str]
    forward_tokens: dict[int, int]


def score_segments(
    segments: Sequence[S],
    trajectory_of: Callable[[S], Hashable],
    records: Mapping[int, Identity | None],
    hold: Hold,
    forward: ForwardSettings,
    bound: float,
) -> Scoring[S]:
    """Score each segment under its own version and verify it on the way; one borrowing per distinct version.

    trajectory_of: segments of one trajectory and version share one forward, cut after the last of them. records: what is known of each
    version. bound: on |old - behavior| of a segment (`verify.segment_bound`).
    """
    result: Scoring[S] = Scoring([], [], [], {}, {})
    by_version: dict[int, list[S]] = defaultdict(list)
    for segment in segments:
        verdict = verify_segment(segment.version, segment.weights_hash, records.get(segment.version))
        if verdict.accepted:
            by_version[segment.version].append(segment)
        else:
            result.refused.append(RefusedSegment(segment, verdict))
    for version, own in sorted(by_version.items()):
        record = records[version]
        assert record is not None  # verify_segment refuses a segment without a record
        try:
            with hold(version) as held:
                verdict = verify_scorer(record, held.version, held.train_hash)
                if verdict.accepted:
                    _score_version(own, trajectory_of, held, forward, bound, result)
                else:
                    result.refused.extend(RefusedSegment(segment, verdict) for segment in own)
        except VersionUnavailableError as error:
            result.unavailable.extend(own)
            result.why_unavailable[version] = str(error)
        except HeldWeightsError as error:
            refusal = Verdict(Reason.WRONG_WEIGHTS, str(error))
            result.refused.extend(RefusedSegment(segment, refusal) for segment in own)
    return result


def merged_scores(
    segments: Sequence[W],
    trajectory_of: Callable[[W], Hashable],
    model: nn.Module,
    forward: ForwardSettings,
) -> tuple[list[tuple[W, Tensor]], int]:
    """Each segment with its log-probs (float [end - start]) under what `model` holds, and the tokens the forwards took.

    Segments of one trajectory share one forward, cut after the last of them. Nothing is verified here.
    """
    merged: dict[Hashable, list[W]] = defaultdict(list)
    for segment in segments:
        merged[trajectory_of(segment)].append(segment)
    families = list(merged.values())
    requests = []
    for family in families:
        longest = max(family, key=lambda segment: segment.end)
        requests.append(ScoreRequest(longest.token_ids, [(segment.start, segment.end) for segment in family]))
    answers = score(model, requests, forward)
    made = [
        (segment, old)
        for family, scores in zip(families, answers, strict=True)
        for segment, old in zip(family, scores, strict=True)
    ]
    return made, sum(max(end for _, end in request.spans) for request in requests)


def _score_version(
    segments: Sequence[S],
    trajectory_of: Callable[[S], Hashable],
    held: HeldVersion,
    forward: ForwardSettings,
    bound: float,
    result: Scoring[S],
) -> None:
    made, result.forward_tokens[held.version] = merged_scores(segments, trajectory_of, held.model, forward)
    believe(made, held.version, held.train_hash, bound, result)


def believe(made: Sequence[tuple[S, Tensor]], version: int, train_hash: str, bound: float, result: Scoring[S]) -> None:
    """Sort scores made by a lender that has been verified: into `result.scored`, or `refused` when the values speak against it."""
    for segment, old in made:
        behavior = torch.tensor(np.asarray(segment.behavior_logprobs, dtype=np.float64))
        verdict = verify_scores(old, behavior, bound)
        if verdict.accepted:
            result.scored.append(ScoredSegment(segment, old, version, train_hash))
        else:
            result.refused.append(RefusedSegment(segment, verdict))
