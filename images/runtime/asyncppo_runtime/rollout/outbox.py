"""What waits to be sent to the learner, and the manifest of what this worker holds unscored. Owns both; sends nothing.

A trajectory is kept until the learner has acknowledged it, which is durable; in columns that flush it stays, for manifests, until
each of its versions is sealed: then its scores are in the ledger.
"""

import asyncio
from collections.abc import Iterable

from asyncppo.wire.experience import (
    MALFORMED_ENDING,
    ManifestEntry,
    Segment,
    Trajectory,
    UploadReply,
    segment_digest,
    unreadable,
)
from asyncppo_runtime.rollout.episode import Episode


class Outbox:
    """keep_until_sealed: whether the job's column flushes. bell: set whenever there is something new to send."""

    def __init__(self, keep_until_sealed: bool) -> None:
        self._keep = keep_until_sealed
        self._sealed = -1
        self._unacknowledged: dict[int, Trajectory] = {}
        self._acknowledged: dict[int, Trajectory] = {}
        self.bell = asyncio.Event()
        self.returns: set[int] = set()

    def __len__(self) -> int:
        return len(self._unacknowledged) + len(self._acknowledged)

    @property
    def unacknowledged(self) -> list[int]:
        """Leases whose trajectory the learner has not acknowledged, oldest first."""
        return list(self._unacknowledged)

    def put(self, trajectory: Trajectory) -> None:
        """A finished trajectory."""
        self._unacknowledged[trajectory.lease_id] = trajectory
        self.bell.set()

    def replace_unreadable(self, lease_id: int, reason: str) -> bool:
        """Have the ending told of a trajectory that cannot be sent, instead of it; false when that cannot be sent either."""
        there = self._unacknowledged.get(lease_id)
        if there is None or there.end_reason == MALFORMED_ENDING:
            self._unacknowledged.pop(lease_id, None)
            return False
        self._unacknowledged[lease_id] = unreadable(lease_id, there.group_id, reason)
        return True

    def give_back(self, lease_id: int) -> None:
        """A lease that will not be produced: `returns` until the learner knows."""
        self.returns.add(lease_id)
        self.bell.set()

    def next(self, limit: int) -> list[Trajectory]:
        """Up to `limit` unacknowledged trajectories, oldest first."""
        return [trajectory for _, trajectory in zip(range(limit), self._unacknowledged.values(), strict=False)]

    def settle(self, reply: UploadReply) -> dict[int, str]:
        """Take in the answer to an upload of finished trajectories: what is accepted is acknowledged, what is refused is dropped.

        Returns refused lease → reason. A lease the answer does not name stays to be sent again.
        """
        refused = {refusal.lease_id: refusal.reason for refusal in reply.refused}
        gone: dict[int, str] = {}
        for lease_id in reply.accepted:
            trajectory = self._unacknowledged.pop(lease_id, None)
            if trajectory is not None and self._wanted(trajectory):
                self._acknowledged[lease_id] = trajectory
        for lease_id, reason in refused.items():
            if self._unacknowledged.pop(lease_id, None) is not None:
                gone[lease_id] = reason
        return gone

    def seal(self, version: int) -> None:
        """Versions up to `version` are sealed: their segments are scored or discarded."""
        if version > self._sealed:
            self._sealed = version
            self._acknowledged = {k: t for k, t in self._acknowledged.items() if self._wanted(t)}

    def entries(self, version: int, episodes: Iterable[Episode]) -> list[ManifestEntry]:
        """Every segment of `version` held here unscored: of unfinished episodes, unacknowledged and unsealed trajectories."""
        held: list[tuple[int, list[int], list[Segment]]] = [
            (episode.lease.lease_id, episode.token_ids, episode.segments) for episode in episodes
        ]
        for box in (self._unacknowledged, self._acknowledged):
            held += [(lease_id, t.token_ids, t.segments) for lease_id, t in box.items()]
        return [
            ManifestEntry(lease_id, segment.index, segment.tokens, segment_digest(token_ids, segment))
            for lease_id, token_ids, segments in held
            for segment in segments
            if segment.version == version
        ]

    def _wanted(self, trajectory: Trajectory) -> bool:
        return self._keep and any(segment.version > self._sealed for segment in trajectory.segments)
