"""Sync epochs: who may move the rollouts to the next version, and the commit point. Owns begin, roll back, seal, finish.

Does not own the order of the protocol's phases (`asyncppo.sync`) nor what a manifest's entries are worth (`manifests.py`).

An epoch is Open, then Sealed, then Finished; or RolledBack (another began before the seal) or Adopted (another began after it).
"""

from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from asyncppo.sync.columns import SealRule
from asyncppo.wire.experience import Manifest
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.ledger import manifests as manifest_sets
from asyncppo_runtime.ledger.database import Database
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.members import GONE, IN_SYNC, fence, member, members
from asyncppo_runtime.ledger.records import EpochRecord, LedgerView

OPEN, SEALED, ROLLED_BACK, ADOPTED, FINISHED = "Open", "Sealed", "RolledBack", "Adopted", "Finished"


@dataclass(frozen=True, slots=True)
class Epoch:
    """The last epoch handed out; number 0 and FINISHED before the first."""

    number: int
    coordinator: str
    state: str
    sealed_version: int
    target: int

    @property
    def open(self) -> bool:
        """Begun and not ended."""
        return self.state in (OPEN, SEALED)


def last_epoch(db: Database) -> Epoch:
    """The last epoch handed out."""
    row = db.row("SELECT epoch, coordinator, state, sealed_version, target FROM epochs ORDER BY epoch DESC LIMIT 1")
    return Epoch(0, "", FINISHED, -1, -1) if row is None else Epoch(*row)


def view(db: Database) -> LedgerView:
    """Where the job is."""
    epoch = last_epoch(db)
    newest, announced = int(db.fact("version")), int(db.fact("announced"))
    rows: dict[str, int] = dict(
        db.rows("SELECT name, fenced FROM epoch_members WHERE epoch = ? ORDER BY name", epoch.number)
    )
    in_sync = [one for one in members(db) if (rows.get(one.name) == 0 if epoch.open else one.state in IN_SYNC)]
    found = db.row("SELECT record, canary FROM versions WHERE version = ?", newest)
    record, canary = found or (None, None)
    told = db.row("SELECT record FROM versions WHERE version = ?", announced)
    return LedgerView(
        job_uid=db.fact("job_uid"),
        epoch=epoch.number,
        owner=epoch.coordinator,
        open=epoch.open,
        sealed=epoch.state == SEALED,
        version=newest,
        announced=announced,
        target=epoch.target,
        stepped=epoch.open and epoch.target >= 0,
        sealed_version=int(db.fact("sealed_version")),
        lineage=int(db.fact("lineage")),
        members=in_sync,
        fenced=[name for name, fenced in rows.items() if fenced],
        record=None if record is None else msgspec.msgpack.decode(record, type=VersionRecord),
        announced_record=None if told is None else msgspec.msgpack.decode(told[0], type=VersionRecord),
        canary=None if canary is None else msgspec.msgpack.decode(canary, type=Canary),
    )


def begin(db: Database, coordinator: str, expected_epoch: int, now: float) -> None:
    """Compare-and-set the next epoch."""
    last = last_epoch(db)
    if last.open and last.number == expected_epoch + 1 and last.coordinator == coordinator:
        return
    if last.number != expected_epoch:
        raise LedgerRefusedError(
            "EpochTaken",
            f"epoch {last.number} is held by {last.coordinator or 'nobody'}; {coordinator} expected {expected_epoch}",
        )
    number = last.number + 1
    if last.state == SEALED:
        _end(db, last.number, ADOPTED)
        _insert(db, Epoch(number, coordinator, SEALED, last.sealed_version, last.target))
        db.execute(
            "INSERT INTO epoch_members SELECT ?, name, incarnation, fenced FROM epoch_members WHERE epoch = ?",
            number,
            last.number,
        )
        db.event(now, "epoch_adopted", number, coordinator)
        return
    if last.state == OPEN:
        _end(db, last.number, ROLLED_BACK)
        db.event(now, "epoch_rolled_back", last.number, last.coordinator)
    _insert(db, Epoch(number, coordinator, OPEN, -1, -1))
    db.execute(
        "INSERT INTO epoch_members SELECT ?, name, incarnation, 0 FROM members WHERE state IN (?, ?)", number, *IN_SYNC
    )
    db.event(now, "epoch_begun", number, coordinator)


def roll_back(db: Database, number: int, now: float) -> None:
    """End an open unsealed epoch without its coordinator."""
    last = last_epoch(db)
    if last.number == number and last.state == ROLLED_BACK:
        return
    if last.number != number or not last.open:
        raise LedgerRefusedError(
            "EpochTaken", f"epoch {number} is not open; the last one is {last.number}, {last.state}"
        )
    if last.state == SEALED:
        raise LedgerRefusedError("Sealed", f"epoch {number} is sealed: there is no way back, load its target")
    _end(db, number, ROLLED_BACK)
    db.event(now, "epoch_rolled_back", number, "by the learner")


def seal(
    db: Database,
    rule: SealRule,
    number: int,
    coordinator: str,
    version: int,
    members: Collection[str],
    manifests: Collection[Manifest],
    fenced: Collection[str],
    now: float,
) -> None:
    """The commit point."""
    epoch = _owned(db, number, coordinator)
    if epoch.state == SEALED:
        if epoch.sealed_version != version:
            raise LedgerRefusedError(
                "WrongVersion", f"epoch {number} is sealed for version {epoch.sealed_version}, not {version}"
            )
        return
    if version != db.fact("announced"):
        raise LedgerRefusedError(
            "WrongVersion", f"the rollouts are on version {db.fact('announced')}; {version} cannot be sealed"
        )
    staying = _narrow(db, number, members, fenced, "sealed without it", now)
    if rule.flushes:
        _check_manifests(db, rule, version, staying, manifests)
    db.set_fact("sealed_version", max(version, int(db.fact("sealed_version"))))
    newest = int(db.fact("version"))
    db.execute(
        "UPDATE epochs SET state = ?, sealed_version = ?, target = ? WHERE epoch = ?",
        SEALED,
        version,
        newest if newest != version else -1,
        number,
    )
    db.event(now, "epoch_sealed", number, f"version {version}, {len(staying)} members")


def finish(
    db: Database,
    number: int,
    coordinator: str,
    loaded: Collection[str],
    fenced: Collection[str],
    seconds: dict[str, float],
    now: float,
) -> None:
    """Everyone left is on the target: it is announced."""
    last = last_epoch(db)
    if last.number == number and last.coordinator == coordinator and last.state == FINISHED:
        return
    epoch = _owned(db, number, coordinator)
    if epoch.state != SEALED:
        raise LedgerRefusedError("NotSealed", f"epoch {number} is not sealed; seal it first")
    if epoch.target < 0:
        raise LedgerRefusedError("NotStepped", f"epoch {number} has no target yet; step and publish first")
    staying = _narrow(db, number, loaded, fenced, "did not load", now)
    for name in staying:
        db.execute("UPDATE members SET version = ? WHERE name = ?", epoch.target, name)
    announce(db, epoch.target)
    db.execute("UPDATE epochs SET seconds = ? WHERE epoch = ?", msgspec.msgpack.encode(seconds), number)
    _end(db, number, FINISHED)
    db.event(now, "epoch_finished", number, f"version {epoch.target}, {len(staying)} members")


def announce(db: Database, version: int) -> None:
    """`version` is what rollouts are on, or are given when they join."""
    db.execute("UPDATE versions SET announced = 1 WHERE version = ?", version)
    db.set_fact("announced", version)
    # A version that was skipped was never sampled from: no honest token of it exists.
    db.set_fact("sealed_version", max(version - 1, int(db.fact("sealed_version"))))


def set_target(db: Database, number: int, version: int) -> None:
    """The open sealed epoch moves to `version`; -1: to one that is not published yet."""
    db.execute("UPDATE epochs SET target = ? WHERE epoch = ?", version, number)


def finished(db: Database, after: int) -> list[EpochRecord]:
    """Every finished epoch with a larger number than `after`, oldest first."""
    rows = db.rows(
        "SELECT epoch, coordinator, sealed_version, target, count(name), coalesce(sum(fenced), 0), seconds "
        "FROM epochs LEFT JOIN epoch_members USING (epoch) WHERE state = ? AND epoch > ? GROUP BY epoch ORDER BY epoch",
        FINISHED,
        after,
    )
    return [
        EpochRecord(
            epoch, coordinator, sealed, target, count, out, msgspec.msgpack.decode(seconds, type=dict[str, float])
        )
        for epoch, coordinator, sealed, target, count, out, seconds in rows
    ]


def _owned(db: Database, number: int, coordinator: str) -> Epoch:
    last = last_epoch(db)
    if last.number != number or last.coordinator != coordinator or not last.open:
        raise LedgerRefusedError(
            "EpochTaken",
            f"epoch {number} is not {coordinator}'s; the last one is {last.number} of {last.coordinator or 'nobody'}, {last.state}",
        )
    return last


def _narrow(
    db: Database, number: int, kept: Collection[str], fenced: Collection[str], why: str, now: float
) -> dict[str, int]:
    """Fence `fenced`; the epoch's members left, name → incarnation, all of whom must be in `kept`."""
    for name in sorted(set(fenced)):
        known = member(db, name)
        part = db.row("SELECT incarnation FROM epoch_members WHERE epoch = ? AND name = ?", number, name)
        # A newer incarnation that joined meanwhile is not the one the coordinator gave up on.
        if known is not None and part is not None and known.incarnation == part[0] and known.state not in GONE:
            fence(db, name, why, now)
    staying: dict[str, int] = dict(
        db.rows("SELECT name, incarnation FROM epoch_members WHERE epoch = ? AND fenced = 0", number)
    )
    missing = sorted(set(staying) - set(kept))
    if missing:
        raise LedgerRefusedError(
            "MembersMissing", f"members {', '.join(missing)} of epoch {number} are neither kept nor fenced"
        )
    return staying


def _check_manifests(
    db: Database, rule: SealRule, version: int, staying: dict[str, int], manifests: Collection[Manifest]
) -> None:
    told = {(manifest.member, manifest.incarnation) for manifest in manifests if manifest.version == version}
    silent = sorted(name for name, incarnation in staying.items() if (name, incarnation) not in told)
    if silent:
        raise LedgerRefusedError("ManifestMissing", f"no manifest of version {version} from {', '.join(silent)}")
    gaps = manifest_sets.gaps(
        db, [manifest for manifest in manifests if staying.get(manifest.member) == manifest.incarnation]
    )
    waiting = gaps.unscored if rule is SealRule.SCORED else []
    if gaps.unrecorded or gaps.conflicting or waiting:
        first = (gaps.unrecorded + gaps.conflicting + waiting)[0]
        raise LedgerRefusedError(
            "ManifestIncomplete",
            f"version {version} has {len(gaps.unrecorded)} segments not recorded, {len(waiting)} not scored and "
            f"{len(gaps.conflicting)} under another digest; the first is segment {first.index} of lease {first.lease_id}",
        )
    if rule is SealRule.SCORED:
        # Also what nobody lists any more (its sender is gone): after the step no weights could score it.
        left = db.row("SELECT count(*) FROM segments WHERE state = 'Unscored' AND version <= ?", version)
        if left is not None and left[0]:
            raise LedgerRefusedError(
                "ManifestIncomplete", f"{left[0]} recorded segments of version {version} or older are not scored"
            )


def _insert(db: Database, epoch: Epoch) -> None:
    db.execute(
        "INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?)",
        epoch.number,
        epoch.coordinator,
        epoch.state,
        epoch.sealed_version,
        epoch.target,
        msgspec.msgpack.encode({}),
    )


def _end(db: Database, number: int, state: str) -> None:
    db.execute("UPDATE epochs SET state = ? WHERE epoch = ?", state, number)
