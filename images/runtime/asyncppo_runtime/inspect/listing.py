"""The newest trajectories of a ledger, and one as a line. Owns which are listed; does not own how a ledger is read."""

from collections.abc import Callable

from asyncppo.report.trajectories import Listing, TrajectoryLine
from asyncppo_runtime.ledger.reader import LedgerReader
from asyncppo_runtime.ledger.records import LeaseState, StoredTrajectory

PAGE = 256


def newest(ledger: LedgerReader, job: str, limit: int) -> Listing:
    """At most `limit` received trajectories, newest lease first."""
    totals = ledger.totals()
    found: list[int] = []
    top = totals.leased
    while top > 0 and len(found) < limit:
        page = ledger.trajectories(after=max(0, top - PAGE), limit=PAGE, state=LeaseState.RECEIVED)
        found += [row.lease_id for row in reversed(page) if row.lease_id <= top]
        top -= PAGE
    resident = resident_before(ledger)
    lines = []
    for lease_id in found[:limit]:
        stored = ledger.trajectory(lease_id)
        if stored is not None:
            lines.append(line_of(stored, resident))
    return Listing(job=job, received=totals.received, trajectories=lines)


def resident_before(ledger: LedgerReader) -> Callable[[int], int | None]:
    """Version → the version that was resident when the step that made it began: its parent."""
    known: dict[int, int | None] = {}

    def parent(version: int) -> int | None:
        if version not in known:
            record = ledger.version(version)
            known[version] = None if record is None else record.parent
        return known[version]

    return parent


def line_of(stored: StoredTrajectory, resident: Callable[[int], int | None]) -> TrajectoryLine:
    """One trajectory as a line."""
    versions = [segment.version for segment in stored.segments]
    trained_on = resident(stored.trained_version) if stored.trained_version >= 0 else None
    return TrajectoryLine(
        id=stored.lease_id,
        group=stored.group_id,
        member=stored.member,
        fate=str(stored.fate or stored.lease_state),
        reason=stored.reason,
        reward=stored.reward,
        end_reason=stored.end_reason,
        tokens=stored.tokens,
        versions=(min(versions), max(versions)) if versions else None,
        staleness=trained_on - min(versions) if trained_on is not None and versions else None,
    )
