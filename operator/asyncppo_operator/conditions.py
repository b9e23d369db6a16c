"""Conditions as Kubernetes has them, and the events their changes make.

Owns the merge with what was said before (a transition time moves only when the status does). Does not own what is said (`status.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from asyncppo_operator.memory import format_time
from asyncppo_operator.views import brief


class Kind(StrEnum):
    """The condition types of a job; True is good, except for the last three, which say where the job is."""

    ACCEPTED = "Accepted"
    RECONCILED = "Reconciled"
    LEARNER_READY = "LearnerReady"
    ROLLOUTS_READY = "RolloutsReady"
    OLD_LOGITS_READY = "OldLogitsReady"
    SYNC_HEALTHY = "SyncHealthy"
    EXACT = "Exact"
    LEDGER_BALANCED = "LedgerBalanced"
    ENVIRONMENT_HEALTHY = "EnvironmentHealthy"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


ON_THE_WAY = frozenset(
    {
        "Creating",
        "Starting",
        "Warming",
        "NotSuspended",
        "NoLearner",
        "NoCoordinator",
        "NoRollouts",
        "NothingTrained",
        "NoTrajectory",
        "Reconciling",
    }
)
"""Reasons that say "not yet", which is no news."""


@dataclass(frozen=True)
class Condition:
    """One condition: status is True, False or Unknown."""

    kind: Kind
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class Event:
    """What `kubectl describe` shows. warning: type Warning instead of Normal."""

    reason: str
    message: str
    warning: bool = False


def condition(kind: Kind, value: bool | None, reason: str, message: str) -> Condition:
    """True, False, or None for Unknown."""
    return Condition(kind, "Unknown" if value is None else str(value), reason, brief(message) or reason)


def merge(
    before: Sequence[Mapping[str, Any]], now: Iterable[Condition], generation: int, at: datetime
) -> list[dict[str, Any]]:
    """The conditions to write, ordered by type of `Kind`; those that nothing is said of now stay as they were."""
    known = {str(old.get("type")): dict(old) for old in before}
    for new in now:
        old = known.get(new.kind.value)
        changed = old is None or old.get("status") != new.status
        known[new.kind.value] = {
            "type": new.kind.value,
            "status": new.status,
            "reason": new.reason,
            "message": new.message,
            "observedGeneration": generation,
            "lastTransitionTime": format_time(at) if changed or old is None else old.get("lastTransitionTime"),
        }
    order = {kind.value: index for index, kind in enumerate(Kind)}
    return sorted(known.values(), key=lambda c: order.get(str(c.get("type")), len(order)))


def events(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Event]:
    """One event for each transition of phase or condition from the status `before` to the status `after`."""
    found: list[Event] = []
    # of a new job Accepted says all that Pending would
    old_phase, new_phase = before.get("phase"), after.get("phase")
    if new_phase and new_phase != old_phase and (old_phase or new_phase != "Pending"):
        bad = new_phase in ("Failed", "Invalid", "Recovering")
        found.append(Event(str(new_phase), str(after.get("message") or new_phase), bad))
    old = {c.get("type"): c for c in before.get("conditions") or []}
    for new in after.get("conditions") or []:
        kind, earlier = new.get("type"), old.get(new.get("type"))
        if kind in (Kind.SUSPENDED, Kind.COMPLETE, Kind.FAILED):
            continue  # the phase has said it
        if kind == Kind.RECONCILED and new.get("status") == "True" and (earlier or {}).get("reason") == "Reconciling":
            continue  # as was to be expected
        same = earlier is not None and all(earlier.get(key) == new.get(key) for key in ("status", "reason"))
        if same or new.get("reason") in ON_THE_WAY or (earlier is None and new.get("status") == "Unknown"):
            continue
        found.append(Event(str(new.get("reason")), f"{kind}: {new.get('message')}", new.get("status") == "False"))
    return found
