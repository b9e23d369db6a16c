"""Builders for ledger tests: settings, versions, members and trajectories with readable defaults. No mocks; no clock."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Manifest, ManifestEntry, Segment, Trajectory, segment_digest
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.ledger.counters import GROUPS
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LedgerSettings, LedgerView, Score, ScoreItem, SealRule

JOB = "job-1"
TTL = 30.0


def settings(
    *,
    job_uid: str = JOB,
    fingerprint: str = "spec-1",
    group_size: int = 2,
    seal_rule: SealRule = SealRule.SCORED,
    exact: bool = True,
    max_attempts: int = 3,
    discard_overlong: bool = False,
    fallback: bool = False,
) -> LedgerSettings:
    """Settings of a small Barrier job."""
    return LedgerSettings(
        job_uid, fingerprint, group_size, 7, seal_rule, exact, max_attempts, discard_overlong, fallback
    )


def record(version: int, *, parent: int | None = None, lineage: int = 0, reason: str = "step") -> VersionRecord:
    """A version whose hashes follow from its number."""
    return VersionRecord(
        version=version,
        parent=version - 1 if parent is None else parent,
        lineage=lineage,
        train_hash=f"train-{version}",
        published_hash=published_hash(version),
        file_size=100,
        file_sha256=f"file-{version}",
        reason=reason,
    )


def published_hash(version: int) -> str:
    """What an engine computes from the bytes of `version`."""
    return f"published-{version}"


def segment(index: int, start: int, end: int, version: int, *, weights_hash: str | None = None) -> Segment:
    """A segment with log-probs that follow from its place."""
    logprobs = [-0.125 * (position + 1) for position in range(start, end)]
    return Segment(
        index, start, end, version, published_hash(version) if weights_hash is None else weights_hash, logprobs
    )


def trajectory(
    lease: Lease,
    versions: Iterable[int] = (0,),
    *,
    finished: bool = True,
    tokens: int = 3,
    reward: float = 1.0,
    end_reason: str = "done",
    weights_hash: str | None = None,
    salt: int = 0,
) -> Trajectory:
    """One segment of `tokens` tokens per entry of `versions`, an environment token before each."""
    segments, ids = [], []
    for index, version in enumerate(versions):
        ids.append(1)
        start = len(ids)
        ids += [10 + salt + index] * tokens
        segments.append(segment(index, start, len(ids), version, weights_hash=weights_hash))
    return Trajectory(
        lease_id=lease.lease_id,
        group_id=lease.group_id,
        token_ids=ids,
        segments=segments,
        finished=finished,
        reward=reward if finished else 0.0,
        end_reason=end_reason if finished else "",
        turns=len(segments),
    )


def manifest(envelope: Envelope, version: int, trajectories: Iterable[Trajectory] = ()) -> Manifest:
    """Every segment of `version` in these trajectories."""
    entries = [
        ManifestEntry(one.lease_id, part.index, part.tokens, segment_digest(one.token_ids, part))
        for one in trajectories
        for part in one.segments
        if part.version == version
    ]
    return Manifest(envelope.target, envelope.incarnation, version, entries)


def score(item: ScoreItem, *, version: int | None = None, train_hash: str | None = None, shift: float = 0.01) -> Score:
    """What a scorer that holds the right weights answers."""
    held = item.version if version is None else version
    return Score(
        item.key, np.asarray(item.behavior_logprobs) + shift, held, train_hash or f"train-{held}", "exact_interrupt"
    )


@dataclass(frozen=True)
class GroupCounts:
    """Groups by state, as the ledger's counters have them."""

    open: int
    ready: int
    trained: int
    discarded: int


def group_counts(ledger: Ledger) -> GroupCounts:
    """The counters that admission works from."""
    counted = ledger._counts()
    return GroupCounts(*(counted.get(GROUPS + state, 0) for state in ("Open", "Ready", "Trained", "Discarded")))


@dataclass
class Job:
    """A ledger with a clock that stands still until told."""

    path: Path
    settings: LedgerSettings = field(default_factory=settings)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.ledger = Ledger.open(self.path, self.settings, self.now)

    def reopen(self) -> None:
        """The learner restarts."""
        self.ledger.close()
        self.ledger = Ledger.open(self.path, self.settings, self.now)

    def publish(self, version: int = 0, trained: Iterable[int] = (), *, reason: str = "step") -> VersionRecord:
        """Publish the next version of the current lineage."""
        view = self.ledger.view()
        head = max((row.record.version for row in self.ledger.versions() if not row.abandoned), default=-1)
        made = record(version, parent=head, lineage=view.lineage, reason=reason)
        self.ledger.publish(made, None, list(trained), [], b"", self.now)
        return made

    def member(self, name: str = "r0") -> Envelope:
        """Join and, on the announced version, get ready."""
        joined = self.ledger.join(name, f"http://{name}", self.now)
        envelope = Envelope(job_uid=self.settings.job_uid, epoch=0, target=name, incarnation=joined.incarnation)
        announced = self.ledger.view().announced
        if announced >= 0:
            self.ledger.ready(envelope, announced, published_hash(announced), self.now)
        return envelope

    def grant(self, sender: Envelope, count: int, allowed: int = 8) -> list[Lease]:
        """Leases on the announced version."""
        return self.ledger.grant(sender, self.ledger.view().announced, count, allowed, TTL, self.now)

    def score_all(self) -> None:
        """Every unscored segment, by its own version."""
        self.ledger.record_scores([score(item) for item in self.ledger.unscored()], self.now)

    def seal(
        self,
        sender: Envelope,
        trajectories: Iterable[Trajectory] = (),
        *,
        coordinator: str = "c",
        epoch: int | None = None,
    ) -> LedgerView:
        """Begin and seal with this one member's manifest."""
        view = self.ledger.view()
        number = self.ledger.begin(coordinator, view.epoch, self.now).epoch if epoch is None else epoch
        told = [manifest(sender, view.announced, trajectories)]
        return self.ledger.seal(number, coordinator, view.announced, [sender.target], told, [], self.now)

    def sync(self, sender: Envelope, trained: Iterable[int] = ()) -> int:
        """A whole Barrier sync of one member: score, seal, publish, finish. Returns the new version."""
        self.score_all()
        epoch = self.seal(sender).epoch
        version = self.ledger.view().version + 1
        self.publish(version, trained)
        self.ledger.finish(epoch, "c", [sender.target], [], {"load": 0.5}, self.now)
        return version

    def check(self) -> None:
        """Both equations, and the running counts against the rows."""
        totals = self.ledger.totals()
        assert totals.balanced
        assert totals == self.ledger.recount()
