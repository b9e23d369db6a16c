"""Trajectories in the making and made, with the scores they have got: what the ledger is in a real run, in memory.

Owns which segments are unscored and the trajectories in the trainer's shapes. Does not own scoring nor sampling.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from asyncppo.wire.experience import Segment, segment_digest
from asyncppo_runtime.ledger.records import (
    Fate,
    LeaseState,
    Score,
    ScoreItem,
    SegmentKey,
    SegmentState,
    StoredSegment,
    StoredTrajectory,
)
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.study.schedule import Course


@dataclass
class Growing:
    """One trajectory. task: plays it. scores: by segment key. discarded: segments that will never have one, and why."""

    course: Course
    episode: Episode
    task: asyncio.Task[None] | None = None
    scores: dict[SegmentKey, Score] = field(default_factory=dict)
    discarded: dict[SegmentKey, str] = field(default_factory=dict)
    _keys: list[SegmentKey] = field(default_factory=list)

    def keys(self) -> list[SegmentKey]:
        """Of its segments so far; a segment never changes once it is there."""
        for segment in self.episode.segments[len(self._keys) :]:
            digest = segment_digest(self.episode.token_ids, segment)
            self._keys.append(SegmentKey(self.course.lease.lease_id, segment.index, digest))
        return self._keys

    def items(self, scored: bool) -> list[ScoreItem]:
        """Its segments as scorers take them: with `scored` all, else those without a score."""
        return [
            self._item(key, segment)
            for key, segment in zip(self.keys(), self.episode.segments, strict=True)
            if scored or (key not in self.scores and key not in self.discarded)
        ]

    def stored(self) -> StoredTrajectory:
        """As the trainer takes it from the ledger. Call when it has ended."""
        trajectory = self.episode.trajectory()
        return StoredTrajectory(
            lease_id=self.course.lease.lease_id,
            group_id=self.course.lease.group_id,
            slot=0,
            attempt=1,
            member="study",
            lease_state=LeaseState.RECEIVED,
            fate=Fate.WAITING,
            reason="",
            reward=trajectory.reward,
            end_reason=trajectory.end_reason,
            tokens=self.episode.sampled_tokens,
            trained_version=-1,
            trajectory=trajectory,
            segments=[self._stored(key, s) for key, s in zip(self.keys(), self.episode.segments, strict=True)],
        )

    def _item(self, key: SegmentKey, segment: Segment) -> ScoreItem:
        return ScoreItem(
            key=key,
            group_id=self.course.lease.group_id,
            version=segment.version,
            weights_hash=segment.weights_hash,
            start=segment.start,
            end=segment.end,
            token_ids=self.episode.token_ids[: segment.end],
            behavior_logprobs=np.asarray(segment.logprobs, np.float64),
        )

    def _stored(self, key: SegmentKey, segment: Segment) -> StoredSegment:
        score = self.scores.get(key)
        state = (
            SegmentState.SCORED if score else SegmentState.DISCARDED if key in self.discarded else SegmentState.UNSCORED
        )
        return StoredSegment(
            key=key,
            start=segment.start,
            end=segment.end,
            version=segment.version,
            weights_hash=segment.weights_hash,
            state=state,
            reason=self.discarded.get(key, ""),
            behavior_logprobs=np.asarray(segment.logprobs, np.float64),
            old_logprobs=np.asarray(score.old_logprobs, np.float64) if score else None,
            scorer_version=score.version if score else -1,
            scorer_hash=score.train_hash if score else "",
            kind=score.kind if score else "",
        )


def unscored(growing: Iterable[Growing]) -> list[ScoreItem]:
    """Every segment without a score."""
    return [item for each in growing for item in each.items(scored=False)]


def forward_tokens(items: Iterable[ScoreItem]) -> int:
    """Tokens that scoring `items` takes forwards for: one prefix for each trajectory and version, up to its last segment's end."""
    ends: dict[tuple[int, int], int] = {}
    for item in items:
        place = (item.key.lease_id, item.version)
        ends[place] = max(ends.get(place, 0), item.end)
    return sum(ends.values())
