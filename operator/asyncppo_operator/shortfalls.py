"""Why a StatefulSet makes no pods: quota, admission. Said only in its events.

Owns what these events say (`Complaints`, one for all jobs, fed by an informer: asking per job would make the API server read all events of
the namespace each time) and when a job believes them (`Shortfalls`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from asyncppo_operator.names import Role
from asyncppo_operator.views import PodView, SetView, brief

Object = dict[str, Any]

FIELDS = "involvedObject.kind=StatefulSet,reason=FailedCreate"
"""Selects the events wanted."""
PATIENCE_SECONDS = 3.0
"""Pods missing for less than this are merely on the way."""


class _Complaint(NamedTuple):
    """at: RFC 3339, of the newest time it was said. event: the event's own name, set: the StatefulSet's uid."""

    at: str
    namespace: str
    event: str
    set: str
    text: str


class Complaints:
    """The newest complaint of every StatefulSet. `touched(uid)` is called for every set that has a new one."""

    def __init__(self, touched: Callable[[str], None]) -> None:
        self._touched = touched
        self._newest: dict[str, _Complaint] = {}

    def of(self, uid: str) -> str:
        """What the StatefulSet with this uid complains of; empty: nothing."""
        found = self._newest.get(uid)
        return found.text if found is not None else ""

    def listed(self, namespace: str | None, objects: list[Object]) -> None:
        """All complaints in `namespace` (None: everywhere)."""
        self._newest = {uid: c for uid, c in self._newest.items() if namespace not in (None, c.namespace)}
        for raw in objects:
            self.changed("ADDED", raw)

    def changed(self, kind: str, raw: Object) -> None:
        """One watch event about an event."""
        new = _complaint(raw)
        known = self._newest.get(new.set)
        if kind == "DELETED":
            # events go an hour after they were said last
            if known is not None and known.event == new.event:
                del self._newest[new.set]
            return
        if known is None or new.at >= known.at:
            self._newest[new.set] = new
            self._touched(new.set)


class Shortfalls:
    """One job's. `found`: role → why its pods are missing."""

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._missing_since: dict[Role, float] = {}
        self.found: dict[Role, str] = {}

    def look(self, desired: Mapping[Role, int], pods: Sequence[PodView], sets: Mapping[Role, SetView]) -> float | None:
        """See which roles' pods have been missing for a while, and why. Returns when to look again (seconds); None: when told."""
        now = time.monotonic()
        again: float | None = None
        self.found = {}
        for role, wanted in desired.items():
            seen = sets.get(role)
            if seen is None or sum(pod.role is role for pod in pods) >= wanted:
                self._missing_since.pop(role, None)
                continue
            left = self._missing_since.setdefault(role, now) + PATIENCE_SECONDS - now
            if not (text := self._complaints.of(seen.uid)):
                continue
            if left <= 0:
                self.found[role] = text
            else:
                again = left if again is None else min(again, left)
        return again


def _complaint(raw: Object) -> _Complaint:
    metadata, involved = raw.get("metadata") or {}, raw.get("involvedObject") or {}
    return _Complaint(
        at=str(raw.get("lastTimestamp") or raw.get("eventTime") or ""),
        namespace=str(metadata.get("namespace") or ""),
        event=str(metadata.get("name") or ""),
        set=str(involved.get("uid") or ""),
        text=brief(raw.get("message")),
    )
