"""The ledger's public face: one method, one transaction.

Owns the list of what can be asked of a ledger that is written to. Does not own how any of it is done: one module per concept does.

Threads: SQLite's connection belongs to the thread that called `open`. Open, use and close a ledger on one dedicated thread (a
ThreadPoolExecutor with one worker). `totals` and `group_counts` alone may be called from anywhere.

Times (`now`) are seconds on any clock that does not jump; they are only compared within one opening.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Manifest, Trajectory
from asyncppo.wire.membership import Member, MemberState
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.ledger import (
    checkpoints,
    counters,
    epochs,
    failures,
    groups,
    leases,
    pruning,
    receipts,
    review,
    scores,
    versions,
)
from asyncppo_runtime.ledger import members as membership
from asyncppo_runtime.ledger.database import Database, open_writer
from asyncppo_runtime.ledger.errors import LedgerRefusedError, LedgerUnusableError
from asyncppo_runtime.ledger.leases import LeaseClock
from asyncppo_runtime.ledger.reader import LedgerReader, stored_settings
from asyncppo_runtime.ledger.records import (
    Beat,
    LedgerSettings,
    LedgerView,
    Limits,
    Receipt,
    Restored,
    Score,
    ScoreReceipt,
    SegmentKey,
)


class Ledger(LedgerReader):
    """The ledger, open for writing by the one learner. Raises LedgerRefusedError, LedgerStorageError."""

    def __init__(self, db: Database, settings: LedgerSettings) -> None:
        super().__init__(db)
        self.settings = settings
        self._clock = LeaseClock()

    @classmethod
    def open(cls, path: Path, settings: LedgerSettings, now: float, *, adopt: bool = False) -> "Ledger":
        """Create or reopen. Restarts the clock of every lease in flight. Raises LedgerUnusableError: another job's ledger, a
        network file system, a damaged file, or one that another process has open for writing. adopt: another job's becomes this
        job's, if it is a run of the same specification."""
        db = open_writer(path, new_facts(settings))
        try:
            there = stored_settings(db)
            _check_identity(path, there, settings, adopt)
            with db.transaction():
                if there.job_uid != settings.job_uid:
                    db.event(now, "adopted", settings.job_uid, there.job_uid)
                    db.set_fact("job_uid", settings.job_uid)
                db.event(now, "opened", settings.job_uid)
            return cls(db, settings)
        except BaseException:
            db.close()
            raise

    def impose(self, limits: Limits, fail_after: int, now: float) -> list[review.Poison]:
        """At a start: trajectories are judged by `limits` from now on, and so is what waits already; what breaks them is discarded and
        given back. A run of failures that has ended the job (`fail_after`) begins anew."""
        self.settings = replace(self.settings, limits=limits)
        with self._db.transaction():
            failures.begin_again(self._db, fail_after)
            return review.review(self._db, self.settings, now)

    # --- epochs -----------------------------------------------------------------------------------------------------------
    def begin(
        self,
        coordinator: str,
        expected_epoch: int,
        now: float,
        wanted: Callable[[LedgerView], bool] = lambda view: True,
    ) -> LedgerView:
        """Compare-and-set: hand the epoch after `expected_epoch` to `coordinator`. An open unsealed epoch is rolled back, an open
        sealed one adopted (the new number starts sealed: same version, target, members, fenced). Idempotent for the same
        coordinator. wanted: whether there is anything to sync for, asked in the same moment when no epoch is open: a coordinator may
        have meant to take over one that has just been finished. Refused: EpochTaken, NotWanted."""
        with self._db.transaction():
            before = epochs.view(self._db)
            epochs.begin(self._db, coordinator, expected_epoch, now)
            if not before.open and not wanted(before):
                raise LedgerRefusedError("NotWanted", "no step and no restore waits for a sync")
            view = epochs.view(self._db)
        self._clock.stop(now)
        return view

    def roll_back(self, epoch: int, now: float) -> LedgerView:
        """End an open unsealed epoch without its coordinator (a pause's TTL has run out). Refused: EpochTaken, Sealed."""
        with self._db.transaction():
            epochs.roll_back(self._db, epoch, now)
            view = epochs.view(self._db)
        self._clock.go_on(now)
        return view

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
        with self._db.transaction():
            epochs.seal(self._db, self.settings.seal_rule, epoch, coordinator, version, members, manifests, fenced, now)
            return epochs.view(self._db)

    def finish(
        self,
        epoch: int,
        coordinator: str,
        loaded: Collection[str],
        fenced: Collection[str],
        seconds: dict[str, float],
        now: float,
    ) -> LedgerView:
        """Every member left is on the target or fenced. Lease clocks go on. Refused: EpochTaken, NotSealed, NotStepped,
        MembersMissing."""
        with self._db.transaction():
            epochs.finish(self._db, epoch, coordinator, loaded, fenced, seconds, now)
            view = epochs.view(self._db)
        self._clock.go_on(now)
        return view

    # --- members ----------------------------------------------------------------------------------------------------------
    def join(self, name: str, url: str, now: float) -> Member:
        """A new incarnation of `name`; an older one is fenced. Leases it held stay its own until they expire."""
        with self._db.transaction():
            return membership.join(self._db, name, url, now)

    def ready(self, envelope: Envelope, version: int, weights_hash: str, now: float) -> MemberState:
        """The member loaded `version`. READY if that is the announced version and no epoch is open, else it stays JOINING.
        Refused: UnknownMember, StaleIncarnation, Fenced, HashMismatch."""
        with self._db.transaction():
            return membership.ready(self._db, envelope, version, weights_hash, now)

    def heartbeat(self, envelope: Envelope, version: int, lease_ids: Collection[int], now: float) -> Beat:
        """Renew the member's leases. Never refused: a fenced or unknown sender is told so by the state.

        What an older incarnation was granted and this one does not name is nobody's any more (its process is gone, and its uploads
        are refused): outside a sync it expires at once."""
        with self._db.reading():
            known = membership.member(self._db, envelope.target)
            if known is None or known.incarnation != envelope.incarnation or known.state in membership.GONE:
                gone = MemberState.LEFT if known and known.state is MemberState.LEFT else MemberState.FENCED
                return Beat(gone, known.incarnation if known else 0, sorted(lease_ids))
            own = leases.held(self._db, known.name, lease_ids)
            orphaned = [] if membership.epoch_open(self._db) else leases.orphaned(self._db, known, own)
        self._clock.renew(own, now)
        if orphaned:
            with self._db.transaction():
                leases.expire(self._db, self.settings, orphaned, now)
        return Beat(known.state, known.incarnation, sorted(set(lease_ids) - set(own)))

    def fence(self, name: str, reason: str, now: float) -> None:
        """Nothing of this incarnation is accepted from now on; no-op for a member already fenced or gone."""
        with self._db.transaction():
            membership.fence(self._db, name, reason, now)

    def drain(self, name: str, now: float) -> MemberState:
        """No new leases for this member. Refused: UnknownMember."""
        with self._db.transaction():
            return membership.drain(self._db, name, now)

    def leave(self, envelope: Envelope, now: float) -> MemberState:
        """A drained member is gone; leases it still held are returned. Refused while an epoch it is part of is open: SyncActive."""
        with self._db.transaction():
            sender = membership.check_sender(self._db, envelope)
            membership.leave(self._db, sender, now)
            leases.give_back_all(self._db, self.settings, sender.name, now)
            return MemberState.LEFT

    # --- leases -----------------------------------------------------------------------------------------------------------
    def grant(
        self, envelope: Envelope, version: int, count: int, live_groups_allowed: int, ttl_seconds: float, now: float
    ) -> list[Lease]:
        """Up to `count` leases: first the members missing from open groups, oldest group first; then new groups, while the live
        groups (open or ready) are fewer than `live_groups_allowed`. Refused: UnknownMember, StaleIncarnation, Fenced, NotReady,
        SyncActive (also while the announced version is one that a restore left behind), StaleVersion."""
        with self._db.transaction():
            sender = membership.check_sender(self._db, envelope)
            granted = leases.grant(self._db, self.settings, sender, version, count, live_groups_allowed, ttl_seconds)
        self._clock.renew([lease.lease_id for lease in granted], now)
        return granted

    def give_back(self, envelope: Envelope, lease_ids: Collection[int], now: float) -> list[int]:
        """End leases as returned; gives those that were in flight. Does not count against a group's attempts."""
        with self._db.transaction():
            sender = membership.check_sender(self._db, envelope)
            return leases.give_back(self._db, self.settings, sender, lease_ids, now)

    def expire(self, now: float) -> list[int]:
        """End every lease whose time to live has run out since its last heartbeat; none while an epoch is open."""
        with self._db.reading():
            if membership.epoch_open(self._db):
                return []
            overdue = self._clock.overdue(leases.in_flight(self._db), now)
        if not overdue:
            return []
        with self._db.transaction():
            return leases.expire(self._db, self.settings, overdue, now)

    # --- trajectories and scores ------------------------------------------------------------------------------------------
    def receive(self, envelope: Envelope, trajectories: Sequence[Trajectory], now: float) -> Receipt:
        """Take finished or partial trajectories; durable when it returns; idempotent. Refused as a whole: UnknownMember,
        StaleIncarnation, Fenced, WrongJob; per lease or segment in the receipt otherwise."""
        with self._db.transaction():
            sender = membership.check_sender(self._db, envelope)
            return receipts.receive(self._db, self.settings, sender, trajectories, now)

    def record_scores(self, scored: Sequence[Score], now: float) -> ScoreReceipt:
        """Store old log-probs. In exact modes only those made by the segment's own version and train hash, or (settings.fallback)
        those that say they stand in for such."""
        with self._db.transaction():
            return scores.record(self._db, self.settings, scored, now)

    def discard_segments(
        self, keys: Iterable[SegmentKey], reason: str, now: float, *, keep_trajectory: bool = False
    ) -> int:
        """End unscored segments as discarded. Their trajectories are discarded with them, unless `keep_trajectory`: then these
        tokens merely have no place in the loss. Returns the number of segments."""
        with self._db.transaction():
            return scores.discard(self._db, self.settings, keys, reason, now, keep_trajectory=keep_trajectory)

    # --- batches and versions ---------------------------------------------------------------------------------------------
    def discard_groups(self, group_ids: Iterable[int], reason: str, now: float) -> int:
        """Discard whole groups, open or ready: received members are discarded, leases in flight end as expired. Returns the
        number of groups."""
        with self._db.transaction():
            return groups.discard(self._db, group_ids, reason, now)

    def publish(
        self,
        record: VersionRecord,
        canary: Canary | None,
        trained: Collection[int],
        zero_variance: Collection[int],
        metrics: bytes,
        now: float,
        *,
        checkpoint: str = "",
    ) -> None:
        """A version row and the trained marks of its batch, in one transaction; call after the weights' rename. With `checkpoint`
        (its path, files renamed) the same transaction commits that too: no crash falls between them. Idempotent for an equal
        record. Groups of `zero_variance` are discarded with that reason. A version nobody samples under yet (no member is ready)
        is announced at once. Refused: VersionTaken, WrongParent, NotSealed (SealRule.SCORED, a step outside a sealed epoch),
        AlreadyStepped, GroupNotReady, NotScored."""
        with self._db.transaction():
            versions.publish(self._db, self.settings, record, canary, trained, zero_variance, metrics, now)
            if checkpoint:
                checkpoints.commit(self._db, record.version, checkpoint, now)

    def commit_checkpoint(self, version: int, path: str, now: float) -> None:
        """One row commits a checkpoint whose files are synced and renamed. Refused: UnknownVersion."""
        with self._db.transaction():
            checkpoints.commit(self._db, version, path, now)

    def drop_checkpoint(self, version: int, now: float) -> None:
        """Forget a checkpoint; call before its files are deleted."""
        with self._db.transaction():
            checkpoints.drop(self._db, version, now)

    def restore(self, version: int, now: float) -> Restored:
        """Go on from the checkpoint of `version`. If later versions were published a new lineage begins: they are abandoned,
        trajectories trained into them wait again (event `undone`) unless they hold tokens of an abandoned version, which are
        discarded as `abandoned_lineage`. Refused: UnknownCheckpoint, Abandoned."""
        with self._db.transaction():
            return checkpoints.restore(self._db, self.settings, version, now)

    def prune(self, now: float, *, sample_every: int = 16, limit: int = 256) -> int:
        """Delete the bodies (ids, log-probs) of trajectories that no retained checkpoint can bring back, except those of every
        `sample_every`-th group, at most `limit` groups a call. Rows and counters stay. Returns the number of groups."""
        with self._db.transaction():
            return pruning.prune(self._db, sample_every, limit, now)

    def forget(self, now: float, *, keep: int = 1024, limit: int = 256) -> int:
        """Delete the rows of groups that were discarded long ago, the newest `keep` excepted, at most `limit` groups a call; counters
        stay. Returns the number of groups. Costs nothing while there are few."""
        counts = self._db.counters
        discarded = counts.value(counters.GROUPS + groups.DISCARDED) - counts.value(counters.FORGOTTEN_GROUPS)
        if discarded < keep + limit:
            return 0
        with self._db.transaction():
            return pruning.forget(self._db, keep, limit, now)

    def _counts(self) -> Mapping[str, int]:
        return self._db.counters.snapshot()


def new_facts(settings: LedgerSettings) -> dict[str, int | str]:
    """The facts of a ledger that is created now."""
    return {
        "job_uid": settings.job_uid,
        "fingerprint": settings.fingerprint,
        "group_size": settings.group_size,
        "seed": settings.seed,
        "seal_rule": settings.seal_rule.value,
        "exact": int(settings.exact),
        "version": -1,
        "head": -1,
        "announced": -1,
        "sealed_version": -1,
        "lineage": 0,
        "next_incarnation": 1,
        "pruned_to": -1,
    }


def _check_identity(path: Path, there: LedgerSettings, asked: LedgerSettings, adopt: bool) -> None:
    if there.job_uid != asked.job_uid and not adopt:
        raise LedgerUnusableError(
            f"{path} holds the run of another job (uid {there.job_uid}, this one is {asked.job_uid}): choose another folder, or go on "
            "with that run by learner.adoptStorage: true"
        )
    same = replace(
        asked,
        job_uid=there.job_uid,
        max_attempts=there.max_attempts,
        discard_overlong=there.discard_overlong,
        fallback=there.fallback,
        limits=there.limits,
    )
    if there != same:
        raise LedgerUnusableError(
            f"{path} holds a run under another specification (fingerprint {there.fingerprint}, now "
            f"{asked.fingerprint}): go on with the specification it was started with, or choose another folder"
        )
