"""Reading a ledger: all that can be asked without changing anything. Owns that list; does not own how any of it is done.

Also what `asyncppo show` uses beside a running learner: one process writes, any number may read.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncppo.report.measures import LedgerTotals
from asyncppo.sync.columns import SealRule
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import Member
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.ledger import (
    batches,
    checkpoints,
    epochs,
    failures,
    groups,
    inspection,
    members,
    scores,
    versions,
)
from asyncppo_runtime.ledger import manifests as manifests_module
from asyncppo_runtime.ledger.counters import read_counts, recount, totals_of
from asyncppo_runtime.ledger.database import Database, open_reader
from asyncppo_runtime.ledger.records import (
    CheckpointRow,
    EpochRecord,
    Event,
    FailureRun,
    GroupCounts,
    LeaseState,
    LedgerSettings,
    LedgerView,
    ManifestGaps,
    OpenGroup,
    ReadyGroup,
    ScoreItem,
    SegmentKey,
    StoredTrajectory,
    TrajectorySummary,
    UnscoredSegment,
    VersionRow,
)


class LedgerReader:
    """Everything that can be read; also what `open_read_only` gives, beside a running learner."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.settings = stored_settings(db)

    @classmethod
    def open_read_only(cls, path: Path) -> "LedgerReader":
        """Read a ledger that may be in use by a learner. Raises LedgerUnusableError."""
        return LedgerReader(open_reader(path))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def identity(self) -> tuple[str, str]:
        """(job_uid, fingerprint)."""
        return self._db.fact("job_uid"), self._db.fact("fingerprint")

    def view(self) -> LedgerView:
        """Where the job is."""
        with self._db.reading():
            return epochs.view(self._db)

    def totals(self) -> LedgerTotals:
        """The counters: cheap, both equations hold in it. Any thread."""
        return totals_of(self._counts())

    def recount(self) -> LedgerTotals:
        """The same figures counted from rows: slow; equal to `totals()` at all times."""
        with self._db.reading():
            return recount(self._db.connection)

    def members(self) -> list[Member]:
        """Every member ever, by name, in its newest incarnation."""
        with self._db.reading():
            return members.members(self._db)

    def versions(self) -> list[VersionRow]:
        """Every published version, oldest first."""
        with self._db.reading():
            return versions.versions(self._db)

    def version(self, version: int) -> VersionRecord | None:
        """The record of a version; None if never published."""
        with self._db.reading():
            return versions.version(self._db, version)

    def epochs(self, after: int = 0) -> list[EpochRecord]:
        """Every finished epoch with a larger number than `after`, oldest first."""
        with self._db.reading():
            return epochs.finished(self._db, after)

    def checkpoints(self) -> list[CheckpointRow]:
        """Committed checkpoints that have not been dropped, oldest first."""
        with self._db.reading():
            return checkpoints.checkpoints(self._db)

    def group_counts(self) -> GroupCounts:
        """How many groups are open, ready, trained, discarded."""
        return groups.counts(self._counts())

    def ready_groups(self) -> list[ReadyGroup]:
        """Complete, untrained groups, oldest version first, then by id."""
        with self._db.reading():
            return batches.ready_groups(self._db)

    def open_groups(self) -> list[OpenGroup]:
        """Incomplete groups by id: who the stragglers are and how old."""
        with self._db.reading():
            return batches.open_groups(self._db)

    def live_groups(self) -> tuple[list[ReadyGroup], list[OpenGroup]]:
        """`ready_groups` and `open_groups` of one moment: asked for one after the other, a group that becomes complete in between
        would be in neither."""
        with self._db.reading():
            return batches.ready_groups(self._db), batches.open_groups(self._db)

    def load_groups(self, group_ids: Iterable[int]) -> list[list[StoredTrajectory]]:
        """The kept trajectories of each group, by slot, with old log-probs. Raises LedgerRefusedError GroupNotReady."""
        with self._db.reading():
            return batches.load_groups(self._db, group_ids)

    def unscored(self, version: int | None = None, limit: int = 1 << 30) -> list[ScoreItem]:
        """Segments recorded and not scored, of `version` or of any; oldest first."""
        with self._db.reading():
            return scores.unscored(self._db, version, limit)

    def unscored_keys(self, group_ids: Iterable[int] | None = None) -> list[UnscoredSegment]:
        """The same without their contexts, which is cheap; of these groups or of all."""
        with self._db.reading():
            return scores.unscored_keys(self._db, group_ids)

    def items(self, keys: Iterable[SegmentKey]) -> list[ScoreItem]:
        """Those of these segments that are recorded under the same digest and not scored (any more: fewer than asked for)."""
        with self._db.reading():
            return scores.items(self._db, keys)

    def score_items(self, group_ids: Iterable[int]) -> list[ScoreItem]:
        """The unscored segments of these groups (scoring at batch time)."""
        with self._db.reading():
            return scores.of_groups(self._db, group_ids)

    def manifest_gaps(self, manifests: Iterable[Manifest]) -> ManifestGaps:
        """What of these manifests is not recorded, not scored, or under another digest. Entries of ended leases are no gaps."""
        with self._db.reading():
            return manifests_module.gaps(self._db, manifests)

    def needed_versions(self) -> set[int]:
        """Versions whose weights may still be asked for: newest, announced, of unscored segments, of checkpoints, and (columns
        without flush, when exact) every version that a lease in flight may have sampled under."""
        with self._db.reading():
            return versions.needed_versions(self._db, self.settings)

    def trajectory(self, lease_id: int) -> StoredTrajectory | None:
        """One lease and everything known of it."""
        with self._db.reading():
            return inspection.trajectory(self._db, lease_id)

    def trajectories(
        self, *, after: int = 0, limit: int = 100, state: LeaseState | None = None
    ) -> list[TrajectorySummary]:
        """A listing by lease id, from the one after `after`."""
        with self._db.reading():
            return inspection.trajectories(self._db, after, limit, state)

    def events(self, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """The history: joins, fences, epochs, publications, restores, late arrivals, violations."""
        with self._db.reading():
            return inspection.events(self._db, after, limit)

    def failures(self) -> FailureRun:
        """Trajectories in a row that were worth nothing, and why."""
        with self._db.reading():
            return failures.read(self._db)

    def _counts(self) -> Mapping[str, int]:
        with self._db.reading():
            return read_counts(self._db.connection)


def stored_settings(db: Database) -> LedgerSettings:
    """What the ledger was created with. max_attempts, discard_overlong, fallback and limits may change between openings: they are no
    part of it."""
    return LedgerSettings(
        job_uid=db.fact("job_uid"),
        fingerprint=db.fact("fingerprint"),
        group_size=db.fact("group_size"),
        seed=db.fact("seed"),
        seal_rule=SealRule(db.fact("seal_rule")),
        exact=bool(db.fact("exact")),
    )
