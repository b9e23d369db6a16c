"""The scoring queue of the Dedicated strategy: which worker scores what, under which version. Pure: no clock, no I/O, no tensors.

Owns assignment, its leases, back-pressure and when a version has nothing left to score. Does not own scores (the ledger records and
verifies them) nor weights. Rebuilt from the ledger's unscored segments after a restart.

A worker is kept on the version it has loaded while that has work; else it goes to the oldest version with work that no other worker is
on, else to the oldest. Work that a worker does not finish in time goes back; finished twice is finished once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from asyncppo_runtime.old_logprobs.errors import QueueError

K = TypeVar("K")


@dataclass(frozen=True)
class QueuedSegment(Generic[K]):
    """key: identifies the segment. tokens: what its forward takes (prefix included). digest: of what the score depends on."""

    key: K
    version: int
    tokens: int
    digest: str


@dataclass(frozen=True)
class Assignment(Generic[K]):
    """Score `segments` under `version` before `deadline`; empty when there is nothing to do."""

    version: int
    segments: tuple[QueuedSegment[K], ...] = ()
    deadline: float = 0.0


@dataclass(frozen=True)
class Backlog:
    """What waits or is being scored. oldest_version: -1 when there is nothing. lag: newest known version minus the oldest with work."""

    segments: int
    tokens: int
    versions: tuple[int, ...]
    oldest_version: int
    lag: int


@dataclass(frozen=True)
class QueueLimits:
    """lease_seconds: a worker that has not answered by then loses its work. batch_tokens: most tokens of one
    assignment (but at least one segment).

    backlog_tokens, backlog_lag: above either, the learner must not publish another version.
    """

    lease_seconds: float = 120.0
    batch_tokens: int = 65536
    backlog_tokens: int = 1 << 22
    backlog_lag: int = 2


@dataclass
class _Worker(Generic[K]):
    incarnation: int
    version: int = -1
    leased: dict[K, float] = field(default_factory=dict)


class ScoringQueue(Generic[K]):
    """All times are the caller's, in seconds on one clock."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self.newest_version = -1
        self._segments: dict[K, QueuedSegment[K]] = {}
        self._waiting: dict[int, dict[K, None]] = {}
        self._workers: dict[str, _Worker[K]] = {}

    def add(self, segment: QueuedSegment[K]) -> bool:
        """Queue a segment; False when it is there already. Raises QueueError when it is there with another digest or version."""
        known = self._segments.get(segment.key)
        if known is not None:
            if (known.digest, known.version) != (segment.digest, segment.version):
                raise QueueError(
                    f"segment {segment.key} is queued already with other content; its sender contradicts itself"
                )
            return False
        self._segments[segment.key] = segment
        self._waiting.setdefault(segment.version, {})[segment.key] = None
        self.newest_version = max(self.newest_version, segment.version)
        return True

    def announce(self, version: int) -> None:
        """A version is published (back-pressure counts from the newest)."""
        self.newest_version = max(self.newest_version, version)

    def register(self, worker: str, incarnation: int) -> None:
        """A worker appears or comes back; what an earlier incarnation had goes back into the queue. Raises QueueError when it is older."""
        known = self._workers.get(worker)
        if known is not None and incarnation < known.incarnation:
            raise QueueError(
                f"worker {worker} is at incarnation {known.incarnation}, not {incarnation}: it has been replaced"
            )
        if known is None or incarnation > known.incarnation:
            self.lose(worker)
            self._workers[worker] = _Worker(incarnation)

    def lose(self, worker: str) -> None:
        """The worker is gone; its work goes back."""
        gone = self._workers.pop(worker, None)
        if gone is not None:
            self._give_back(gone.leased)

    def give_back(self, worker: str, incarnation: int) -> None:
        """The worker keeps its place but not its work. Raises QueueError for one that is not registered with this incarnation."""
        here = self._worker(worker, incarnation)
        self._give_back(here.leased)
        here.leased.clear()

    def assign(self, worker: str, incarnation: int, loaded_version: int, now: float) -> Assignment[K]:
        """Work for a worker that has `loaded_version` loaded (-1: none). What it already has and has not finished is given again first.

        Raises QueueError for a worker that is not registered with this incarnation.
        """
        self.expire(now)
        here = self._worker(worker, incarnation)
        self._give_back(here.leased)
        here.leased.clear()
        here.version = loaded_version
        version = self._choose(worker, loaded_version)
        if version is None:
            return Assignment(loaded_version)
        chosen: list[QueuedSegment[K]] = []
        tokens = 0
        for key in self._waiting[version]:
            segment = self._segments[key]
            if chosen and tokens + segment.tokens > self.limits.batch_tokens:
                break
            chosen.append(segment)
            tokens += segment.tokens
        deadline = now + self.limits.lease_seconds
        for segment in chosen:
            self._take(segment)
            here.leased[segment.key] = deadline
        here.version = version
        return Assignment(version, tuple(chosen), deadline)

    def complete(self, key: K, digest: str) -> bool:
        """The segment is scored (or discarded), by whomever; False when it is not queued (any more).

        Raises QueueError when the digest is another one: the score belongs to other content.
        """
        segment = self._segments.get(key)
        if segment is None:
            return False
        if segment.digest != digest:
            raise QueueError(f"segment {key} was scored with other content than is queued; the score is not taken")
        del self._segments[key]
        self._take(segment)
        for worker in self._workers.values():
            worker.leased.pop(key, None)
        return True

    def expire(self, now: float) -> list[K]:
        """Take back what is overdue; returns the keys."""
        overdue: list[K] = []
        for worker in self._workers.values():
            late = [key for key, deadline in worker.leased.items() if deadline <= now]
            for key in late:
                del worker.leased[key]
            overdue += late
        self._give_back(overdue)
        return overdue

    def holds(self, key: K) -> bool:
        """Whether the segment waits or is being scored."""
        return key in self._segments

    def segments(self) -> list[QueuedSegment[K]]:
        """Everything that waits or is being scored."""
        return list(self._segments.values())

    def busy(self, now: float) -> bool:
        """Whether some worker still has work in time."""
        return any(deadline > now for worker in self._workers.values() for deadline in worker.leased.values())

    def drained(self, version: int) -> bool:
        """Whether nothing of this version waits or is being scored (it can be retired once it is also sealed)."""
        return all(segment.version != version for segment in self._segments.values())

    def backlog(self) -> Backlog:
        """What is left to do."""
        versions = tuple(sorted({segment.version for segment in self._segments.values()}))
        oldest = versions[0] if versions else -1
        return Backlog(
            segments=len(self._segments),
            tokens=sum(segment.tokens for segment in self._segments.values()),
            versions=versions,
            oldest_version=oldest,
            lag=self.newest_version - oldest if versions else 0,
        )

    def holds_back_publication(self) -> str:
        """Why the learner must not publish another version now; empty when it may."""
        backlog = self.backlog()
        if backlog.tokens > self.limits.backlog_tokens:
            return (
                f"{backlog.tokens} tokens wait to be scored (limit {self.limits.backlog_tokens}); add old-logit workers"
            )
        if backlog.lag > self.limits.backlog_lag:
            return f"version {backlog.oldest_version} is not scored yet at version {self.newest_version}; add old-logit workers"
        return ""

    def _choose(self, worker: str, loaded: int) -> int | None:
        if self._waiting.get(loaded):
            return loaded
        with_work = sorted(version for version, keys in self._waiting.items() if keys)
        taken = {other.version for name, other in self._workers.items() if name != worker and other.leased}
        untaken = [version for version in with_work if version not in taken]
        return next(iter(untaken or with_work), None)

    def _worker(self, worker: str, incarnation: int) -> _Worker[K]:
        known = self._workers.get(worker)
        if known is None or known.incarnation != incarnation:
            raise QueueError(f"worker {worker} (incarnation {incarnation}) is not registered; register again")
        return known

    def _take(self, segment: QueuedSegment[K]) -> None:
        waiting = self._waiting.get(segment.version, {})
        waiting.pop(segment.key, None)
        if not waiting:
            self._waiting.pop(segment.version, None)

    def _give_back(self, keys: Iterable[K]) -> None:
        """To the front of their versions, in order."""
        by_version: dict[int, dict[K, None]] = {}
        for key in keys:
            segment = self._segments.get(key)
            if segment is not None:
                by_version.setdefault(segment.version, {})[key] = None
        for version, returned in by_version.items():
            self._waiting[version] = returned | self._waiting.get(version, {})
