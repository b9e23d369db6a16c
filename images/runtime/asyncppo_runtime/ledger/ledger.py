"""The ledger's public face: one method, one transaction.

Owns the list of what can be asked of a ledger. Does not own how any of it is done: one module per concept does.

Threads: SQLite's connection belongs to the thread that called `open`. Open, use and close a ledger on one dedicated thread (a
ThreadPoolExecutor with one worker). `totals` alone may be called from anywhere.

Times (`now`) are seconds on any clock that does not jump; the ledger only compares them with each other within one opening.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncppo.report.measures import LedgerTotals
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Manifest, Trajectory
from asyncppo.wire.membership import Member, MemberState
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.ledger.records import (
    Beat,
    CheckpointRow,
    EpochRecord,
    Event,
    GroupCounts,
    LeaseState,
    LedgerSettings,
    LedgerView,
    ManifestGaps,
    OpenGroup,
    ReadyGroup,
    Receipt,
    Restored,
    Score,
    ScoreItem,
    ScoreReceipt,
    SegmentKey,
    StoredTrajectory,
    TrajectorySummary,
    VersionRow,
)


class LedgerReader:
    """Everything that can be read; also what `open_read_only` gives, beside a running learner."""

    @classmethod
    def open_read_only(cls, path: Path) -> "LedgerReader":
        """Read a ledger that may be in use by a learner. Raises LedgerUnusableError."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def identity(self) -> tuple[str, str]:
        """(job_uid, fingerprint)."""
        raise NotImplementedError

    def view(self) -> LedgerView:
        """Where the job is."""
        raise NotImplementedError

    def totals(self) -> LedgerTotals:
        """The counters: cheap, both equations hold in it. Any thread."""
        raise NotImplementedError

    def recount(self) -> LedgerTotals:
        """The same figures counted from rows: slow; equal to `totals()` at all times."""
        raise NotImplementedError

    def members(self) -> list[Member]:
        """Every member ever, by name, in its newest incarnation."""
        raise NotImplementedError

    def versions(self) -> list[VersionRow]:
        """Every published version, oldest first."""
        raise NotImplementedError

    def version(self, version: int) -> VersionRecord | None:
        """The record of a version; None if never published."""
        raise NotImplementedError

    def epochs(self) -> list[EpochRecord]:
        """Every finished epoch, oldest first."""
        raise NotImplementedError

    def checkpoints(self) -> list[CheckpointRow]:
        """Committed checkpoints that have not been dropped, oldest first."""
        raise NotImplementedError

    def group_counts(self) -> GroupCounts:
        """How many groups are open, ready, trained, discarded."""
        raise NotImplementedError

    def ready_groups(self) -> list[ReadyGroup]:
        """Complete, untrained groups, oldest version first, then by id."""
        raise NotImplementedError

    def open_groups(self) -> list[OpenGroup]:
        """Incomplete groups by id: who the stragglers are and how old."""
        raise NotImplementedError

    def load_groups(self, group_ids: Iterable[int]) -> list[list[StoredTrajectory]]:
        """The kept trajectories of each group, by slot, with old log-probs. Raises LedgerRefusedError GroupNotReady."""
        raise NotImplementedError

    def unscored(self, version: int | None = None, limit: int = 1 << 30) -> list[ScoreItem]:
        """Segments recorded and not scored, of `version` or of any; oldest first."""
        raise NotImplementedError

    def score_items(self, group_ids: Iterable[int]) -> list[ScoreItem]:
        """The unscored segments of these groups (scoring at batch time)."""
        raise NotImplementedError

    def manifest_gaps(self, manifests: Iterable[Manifest]) -> ManifestGaps:
        """What of these manifests is not recorded, not scored, or under another digest. Entries of ended leases are no gaps."""
        raise NotImplementedError

    def needed_versions(self) -> set[int]:
        """Versions whose weights may still be asked for: newest, announced, of unscored segments, of checkpoints, and (columns
        without flush, when exact) every version that a lease in flight may have sampled under."""
        raise NotImplementedError

    def trajectory(self, lease_id: int) -> StoredTrajectory | None:
        """One lease and everything known of it."""
        raise NotImplementedError

    def trajectories(
        self, *, after: int = 0, limit: int = 100, state: LeaseState | None = None
    ) -> list[TrajectorySummary]:
        """A listing by lease id, from the one after `after`."""
        raise NotImplementedError

    def events(self, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """The history: joins, fences, epochs, publications, restores, late arrivals, violations."""
        raise NotImplementedError


class Ledger(LedgerReader):
    """The ledger, open for writing by the one learner. Raises LedgerRefusedError, LedgerStorageError."""

    @classmethod
    def open(cls, path: Path, settings: LedgerSettings, now: float) -> "Ledger":
        """Create or reopen. Restarts the clock of every lease in flight. Raises LedgerUnusableError: another job's ledger, a
        network file system, a damaged file, or one that another process has open for writing."""
        raise NotImplementedError

    # --- epochs -----------------------------------------------------------------------------------------------------------
    def begin(self, coordinator: str, expected_epoch: int, now: float) -> LedgerView:
        """Compare-and-set: hand the epoch after `expected_epoch` to `coordinator`. An open unsealed epoch is rolled back, an open
        sealed one adopted (the new number starts sealed: same version, target, members, fenced). Idempotent for the same
        coordinator. Refused: EpochTaken."""
        raise NotImplementedError

    def roll_back(self, epoch: int, now: float) -> LedgerView:
        """End an open unsealed epoch without its coordinator (a pause's TTL has run out). Refused: EpochTaken, Sealed."""
        raise NotImplementedError

    def seal(
        self,
        epoch: int,
        coordinator: str,
        version: int,
        members: Collection[str],
        manifests: Collection[Manifest],
        fenced: Collection[str],
        now: float,
    ) -> LedgerView:
        """The commit point: ends `version` (must be the announced one). Every member frozen at begin is in `members` or `fenced`
        or has been fenced since. In columns that flush each of `members` has a manifest and each entry is scored (or recorded)
        or discarded. Refused: EpochTaken, WrongVersion, MembersMissing, ManifestMissing, ManifestIncomplete."""
        raise NotImplementedError

    def finish(
        self,
        epoch: int,
        coordinator: str,
        loaded: Collection[str],
        fenced: Collection[str],
        seconds: dict[str, float],
        now: float,
    ) -> LedgerView:
        """Every member left is on the target or fenced. Restarts lease clocks. Refused: EpochTaken, NotSealed, NotStepped,
        MembersMissing."""
        raise NotImplementedError

    # --- members ----------------------------------------------------------------------------------------------------------
    def join(self, name: str, url: str, now: float) -> Member:
        """A new incarnation of `name`; an older one is fenced. Leases it held stay its own until they expire."""
        raise NotImplementedError

    def ready(self, envelope: Envelope, version: int, weights_hash: str, now: float) -> MemberState:
        """The member loaded `version`. READY if that is the announced version and no epoch is open, else it stays JOINING.
        Refused: UnknownMember, StaleIncarnation, Fenced, HashMismatch."""
        raise NotImplementedError

    def heartbeat(self, envelope: Envelope, version: int, lease_ids: Collection[int], now: float) -> Beat:
        """Renew the member's leases. Never refused: a fenced or unknown sender is told so by the state."""
        raise NotImplementedError

    def fence(self, name: str, reason: str, now: float) -> None:
        """Nothing of this incarnation is accepted from now on; no-op for a member already fenced or gone."""
        raise NotImplementedError

    def drain(self, name: str, now: float) -> MemberState:
        """No new leases for this member. Refused: UnknownMember."""
        raise NotImplementedError

    def leave(self, envelope: Envelope, now: float) -> MemberState:
        """A drained member is gone; leases it still held are returned. Refused while an epoch it is part of is open: SyncActive."""
        raise NotImplementedError

    # --- leases -----------------------------------------------------------------------------------------------------------
    def grant(
        self, envelope: Envelope, version: int, count: int, live_groups_allowed: int, ttl_seconds: float, now: float
    ) -> list[Lease]:
        """Up to `count` leases: first the members missing from open groups, oldest group first; then new groups, while the live
        groups (open or ready) are fewer than `live_groups_allowed`. Refused: UnknownMember, StaleIncarnation, Fenced, NotReady,
        SyncActive, StaleVersion."""
        raise NotImplementedError

    def give_back(self, envelope: Envelope, lease_ids: Collection[int], now: float) -> list[int]:
        """End leases as returned; gives those that were in flight. Does not count against a group's attempts."""
        raise NotImplementedError

    def expire(self, now: float) -> list[int]:
        """End every lease whose time to live has run out since its last heartbeat; none while an epoch is open."""
        raise NotImplementedError

    # --- trajectories and scores ------------------------------------------------------------------------------------------
    def receive(self, envelope: Envelope, trajectories: Sequence[Trajectory], now: float) -> Receipt:
        """Take finished or partial trajectories; durable when it returns; idempotent. Refused as a whole: UnknownMember,
        StaleIncarnation, Fenced, WrongJob; per lease or segment in the receipt otherwise."""
        raise NotImplementedError

    def record_scores(self, scores: Sequence[Score], now: float) -> ScoreReceipt:
        """Store old log-probs. In exact modes only those made by the segment's own version and train hash."""
        raise NotImplementedError

    def discard_segments(
        self, keys: Iterable[SegmentKey], reason: str, now: float, *, keep_trajectory: bool = False
    ) -> int:
        """End unscored segments as discarded. Their trajectories are discarded with them, unless `keep_trajectory`: then these
        tokens merely have no place in the loss. Returns the number of segments."""
        raise NotImplementedError

    # --- batches and versions ---------------------------------------------------------------------------------------------
    def discard_groups(self, group_ids: Iterable[int], reason: str, now: float) -> int:
        """Discard whole groups, open or ready: received members are discarded, leases in flight end as expired. Returns the
        number of groups."""
        raise NotImplementedError

    def publish(
        self,
        record: VersionRecord,
        canary: Canary | None,
        trained: Collection[int],
        zero_variance: Collection[int],
        metrics: bytes,
        now: float,
    ) -> None:
        """A version row and the trained marks of its batch, in one transaction; call after the weights' rename. Idempotent for
        an equal record. Groups of `zero_variance` are discarded with that reason. The first version of a job is announced at
        once. Refused: VersionTaken, WrongParent, NotSealed (SealRule.SCORED, a step outside a sealed epoch), AlreadyStepped,
        GroupNotReady, NotScored."""
        raise NotImplementedError

    def commit_checkpoint(self, version: int, path: str, now: float) -> None:
        """One row commits a checkpoint whose files are synced and renamed. Refused: UnknownVersion."""
        raise NotImplementedError

    def drop_checkpoint(self, version: int, now: float) -> None:
        """Forget a checkpoint; call before its files are deleted."""
        raise NotImplementedError

    def restore(self, version: int, now: float) -> Restored:
        """Go on from the checkpoint of `version`. If later versions were published a new lineage begins: they are abandoned,
        trajectories trained into them wait again (event `undone`) unless they hold tokens of an abandoned version, which are
        discarded as `abandoned_lineage`. Refused: UnknownCheckpoint, Abandoned."""
        raise NotImplementedError

    def prune(self, now: float, *, sample_every: int = 16, limit: int = 256) -> int:
        """Delete the bodies (ids, log-probs) of trajectories that no retained checkpoint can bring back, except those of every
        `sample_every`-th group, at most `limit` groups a call. Rows and counters stay. Returns the number of groups."""
        raise NotImplementedError
