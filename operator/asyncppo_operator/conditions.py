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
    """The condition types of a job; True is good, except for the last three, which say where the job is. Ready sums the others up."""

    READY = "Ready"
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


OF_PODS = frozenset({Kind.LEARNER_READY, Kind.ROLLOUTS_READY, Kind.OLD_LOGITS_READY})
"""Whose messages count pods."""

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
        "Ending",
        "MoreUpdates",
        "JobComplete",
        "JobFailed",
        "JobSuspended",
    }
)
"""Reasons that say "not yet" or "no more", which is no news: the phase says it."""


@dataclass(frozen=True)
class Condition:
    """One condition: status is True, False or Unknown."""

    kind: Kind
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class Event:
    """What `kubectl describe` shows. warning: type Warning instead of Normal. about: events about the same thing and for the same reason
    are one, which says the newest message; without it, only those are one that say the same."""

    reason: str
    message: str
    warning: bool = False
    about: str = ""


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
        if kind in (Kind.READY, Kind.SUSPENDED, Kind.COMPLETE, Kind.FAILED):
            continue  # the phase or another condition has said it
        if kind == Kind.RECONCILED and new.get("status") == "True" and (earlier or {}).get("reason") == "Reconciling":
            continue  # as was to be expected
        # "1/2 pods" becomes "2/2 pods": an event that counts must not stay behind
        counts = kind in OF_PODS and new.get("status") == "False"
        told = ("status", "reason", "message") if counts else ("status", "reason")
        same = earlier is not None and all(earlier.get(key) == new.get(key) for key in told)
        if same or new.get("reason") in ON_THE_WAY or (earlier is None and new.get("status") == "Unknown"):
            continue
        about = str(kind) if counts else ""
        found.append(
            Event(str(new.get("reason")), f"{kind}: {new.get('message')}", new.get("status") == "False", about)
        )
    return found
