"""What the ledger holds already, judged once more by the rules of the door (`judgement.py`). Owns that second look.

A ledger written by an older program, or under looser limits, may hold what no step survives (a reward of 1e300, an id the model has no
row for): each start would end where the one before did. It is discarded with its reason, as it would be if it came in now.
"""

from dataclasses import dataclass

import numpy as np

from asyncppo_runtime.ledger import fates, groups
from asyncppo_runtime.ledger.database import Database
from asyncppo_runtime.ledger.inspection import BODY
from asyncppo_runtime.ledger.judgement import HIGHEST_LOGPROB, LOWEST_LOGPROB, reward_breach, token_breach
from asyncppo_runtime.ledger.records import Fate, LeaseState, LedgerSettings, Reason


@dataclass(frozen=True, slots=True)
class Poison:
    """A trajectory that was discarded by the review. detail: what is wrong with it."""

    lease_id: int
    reason: str
    detail: str


def review(db: Database, settings: LedgerSettings, now: float) -> list[Poison]:
    """Discard the waiting trajectories that break the limits, and spoil the leases in flight that do. Returns them, by lease."""
    limits = settings.limits
    found: list[Poison] = []
    rows = db.rows(
        "SELECT lease_id, fate IS NOT NULL, coalesce(reward, 0.0), length FROM leases LEFT JOIN trajectories USING (lease_id) "
        "WHERE fate = ? OR (leases.state = ? AND spoiled = '') ORDER BY lease_id",
        Fate.WAITING,
        LeaseState.IN_FLIGHT,
    )
    for lease_id, finished, reward, length in rows:
        detail = reward_breach(reward, limits) if finished else ""
        reason: str = Reason.REWARD_OUT_OF_BOUNDS if detail else ""
        if not reason:
            # One body at a time, and none that is known to be too long: such a one may not fit into memory.
            reason, detail = token_breach(length, (), limits)
            body = None if reason else db.row("SELECT body FROM bodies WHERE lease_id = ?", lease_id)
            if body is not None:
                reason, detail = token_breach(length, BODY.decode(body[0]).token_ids, limits)
        if not reason and (detail := _logprob_breach(db, lease_id)):
            reason = Reason.MALFORMED
        if reason:
            found.append(Poison(lease_id, reason, detail))
    for reason in sorted({poison.reason for poison in found}):
        leases = [poison.lease_id for poison in found if poison.reason == reason]
        fates.spoil(db, leases, reason)
        groups.drop_trajectories(db, settings, leases, reason, now)
    for poison in found:
        db.event(now, "discarded_on_review", poison.lease_id, f"{poison.reason}: {poison.detail}")
    return found


def _logprob_breach(db: Database, lease_id: int) -> str:
    for index, behavior in db.rows("SELECT position, behavior FROM segments WHERE lease_id = ?", lease_id):
        values = np.frombuffer(behavior or b"", "<f8")
        if not ((values >= LOWEST_LOGPROB) & (values <= HIGHEST_LOGPROB)).all():
            return f"segment {index} has a log-prob that is none"
    return ""
