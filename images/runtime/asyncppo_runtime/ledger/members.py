"""Members: who may speak to the ledger, and as which incarnation. Owns joining, fencing, draining, leaving.

Does not own the leases they hold (`leases.py`) nor when a sync happens (`epochs.py`).
"""

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.membership import Member, MemberState
from asyncppo_runtime.ledger.database import Database, Row
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import Reason

IN_SYNC = (MemberState.READY, MemberState.DRAINING)
GONE = (MemberState.FENCED, MemberState.LEFT)


def members(db: Database) -> list[Member]:
    """Every member ever, by name, in its newest incarnation."""
    rows = db.rows("SELECT name, incarnation, url, state, version FROM members ORDER BY name")
    return [_member(row) for row in rows]


def member(db: Database, name: str) -> Member | None:
    """The newest incarnation of `name`."""
    row = db.row("SELECT name, incarnation, url, state, version FROM members WHERE name = ?", name)
    return None if row is None else _member(row)


def check_sender(db: Database, envelope: Envelope) -> Member:
    """The member that speaks, if it may. Refused: WrongJob, UnknownMember, StaleIncarnation, Fenced."""
    if envelope.job_uid != db.fact("job_uid"):
        raise LedgerRefusedError(
            "WrongJob", f"this learner's job is {db.fact('job_uid')}, the message is of {envelope.job_uid}"
        )
    known = member(db, envelope.target)
    if known is None:
        raise LedgerRefusedError("UnknownMember", f"{envelope.target} has not joined; join first")
    if known.incarnation != envelope.incarnation:
        raise LedgerRefusedError(
            "StaleIncarnation",
            f"{known.name} is now incarnation {known.incarnation}, not {envelope.incarnation}; join again",
        )
    if known.state in GONE:
        raise LedgerRefusedError(
            "Fenced", f"incarnation {known.incarnation} of {known.name} is {known.state}; join again"
        )
    return known


def join(db: Database, name: str, url: str, now: float) -> Member:
    """Hand out the next incarnation; an older one is fenced."""
    older = member(db, name)
    if older is not None and older.state not in GONE:
        fence(db, name, "rejoined", now)
    incarnation = int(db.fact("next_incarnation"))
    db.set_fact("next_incarnation", incarnation + 1)
    db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, -1)", name, incarnation, url, MemberState.JOINING)
    db.event(now, "joined", name, incarnation)
    return Member(name, incarnation, url, MemberState.JOINING)


def ready(db: Database, envelope: Envelope, version: int, weights_hash: str, now: float) -> MemberState:
    """JOINING → READY on the announced version outside a sync; otherwise the state stays."""
    sender = check_sender(db, envelope)
    expected = db.row("SELECT published_hash FROM versions WHERE version = ?", version)
    if expected is None or expected[0] != weights_hash:
        raise LedgerRefusedError(
            "HashMismatch",
            f"{sender.name} loaded {weights_hash[:16]}… as version {version}, which is not what was published",
        )
    if sender.state is MemberState.JOINING and version == db.fact("announced") and not epoch_open(db):
        set_state(db, sender.name, MemberState.READY)
        db.execute("UPDATE members SET version = ? WHERE name = ?", version, sender.name)
        db.event(now, "ready", sender.name, version)
        return MemberState.READY
    return sender.state


def fence(db: Database, name: str, reason: str, now: float) -> None:
    """Nothing of this incarnation is accepted from now on; it also drops out of an open epoch."""
    known = member(db, name)
    if known is None or known.state in GONE:
        return
    set_state(db, name, MemberState.FENCED)
    _drop_from_epoch(db, known)
    db.event(now, Reason.FENCED, name, f"{known.incarnation} {reason}")


def drain(db: Database, name: str, now: float) -> MemberState:
    """No new leases from now on."""
    known = member(db, name)
    if known is None:
        raise LedgerRefusedError("UnknownMember", f"{name} has not joined")
    if known.state not in (MemberState.JOINING, MemberState.READY):
        return known.state
    set_state(db, name, MemberState.DRAINING)
    db.event(now, "draining", name, known.incarnation)
    return MemberState.DRAINING


def leave(db: Database, sender: Member, now: float) -> None:
    """Gone in good order. Refused while an epoch it is part of is open."""
    part = db.row(
        "SELECT 1 FROM epoch_members JOIN epochs USING (epoch) "
        "WHERE name = ? AND incarnation = ? AND fenced = 0 AND state IN ('Open', 'Sealed')",
        sender.name,
        sender.incarnation,
    )
    if part is not None:
        raise LedgerRefusedError("SyncActive", f"{sender.name} is part of the sync that is under way; leave after it")
    set_state(db, sender.name, MemberState.LEFT)
    db.event(now, "left", sender.name, sender.incarnation)


def epoch_open(db: Database) -> bool:
    """Whether a sync is under way."""
    return (
        db.row("SELECT 1 FROM epochs WHERE epoch = (SELECT max(epoch) FROM epochs) AND state IN ('Open', 'Sealed')")
        is not None
    )


def set_state(db: Database, name: str, state: MemberState) -> None:
    """Write a member's state."""
    db.execute("UPDATE members SET state = ? WHERE name = ?", state, name)


def _drop_from_epoch(db: Database, known: Member) -> None:
    db.execute(
        "UPDATE epoch_members SET fenced = 1 WHERE name = ? AND incarnation = ? AND epoch = (SELECT max(epoch) FROM epochs)",
        known.name,
        known.incarnation,
    )


def _member(row: Row) -> Member:
    name, incarnation, url, state, version = row
    return Member(name, incarnation, url, MemberState(state), version)
