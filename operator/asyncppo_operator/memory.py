"""What the operator remembers of a job between reconciles: read back from the job's own status, so that a restart forgets nothing.

Owns `Memory` and the counting of failures. Does not own decisions (`plan/lifecycle.py`) nor the whole status (`status.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from asyncppo.api.status import Phase
from asyncppo_operator.names import Role
from asyncppo_operator.views import PodView, Termination

FINAL = frozenset({Phase.COMPLETE, Phase.FAILED})
"""Phases of a job that is over."""


@dataclass(frozen=True)
class Failure:
    """The first failure of a role: what users look for among all that follow from it. at: RFC 3339. No field is empty: API servers
    of version 1.20 make null of an empty string in an apply."""

    role: str
    pod: str
    reason: str
    message: str
    at: str


@dataclass(frozen=True)
class Memory:
    """counted: restarts already counted, by pod uid, of pods that still exist. suspending: since when a stop is under way.

    storage: uid of the learner's volume claim, since it was made; it is never made twice.
    """

    phase: Phase = Phase.PENDING
    started: datetime | None = None
    completed: datetime | None = None
    suspending: datetime | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)
    first_failure: Failure | None = None
    storage: str = ""

    @property
    def total_failures(self) -> int:
        """Over all roles."""
        return sum(self.failures.values())


def parse_time(text: object) -> datetime | None:
    """An RFC 3339 time in UTC, or None for anything else."""
    if not isinstance(text, str) or not text:
        return None
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def recall(status: Mapping[str, Any]) -> Memory:
    """The memory in a job's status; whatever is missing or not as written here counts as not there."""
    try:
        phase = Phase(str(status.get("phase")))
    except ValueError:
        phase = Phase.PENDING
    first = status.get("firstFailure")
    return Memory(
        phase=phase,
        started=parse_time(status.get("startTime")),
        completed=parse_time(status.get("completionTime")),
        suspending=parse_time(status.get("suspendingTime")),
        failures=_counts(status.get("failures")),
        counted=_counts(status.get("countedRestarts")),
        first_failure=(
            Failure(*(str(first.get(key) or "") for key in ("role", "pod", "reason", "message", "at")))
            if isinstance(first, Mapping)
            else None
        ),
        storage=str(status.get("storageUid") or ""),
    )


def _counts(raw: object) -> dict[str, int]:
    if not isinstance(raw, Mapping):
        return {}
    return {str(k): v for k, v in raw.items() if isinstance(v, int) and not isinstance(v, bool) and v > 0}


def count_failures(memory: Memory, pods: Iterable[PodView], now: datetime) -> Memory:
    """Add restarts not counted yet. A restart after a clean end, or by the cluster's own doing, is no failure of the role.

    Counting is by pod uid and idempotent: the same pods counted again add nothing.
    """
    failures = dict(memory.failures)
    counted: dict[str, int] = {}
    first = memory.first_failure
    for pod in sorted(pods, key=lambda p: (p.last.at if p.last else "", p.name)):
        before = memory.counted.get(pod.uid, 0)
        if pod.restarts:
            counted[pod.uid] = max(before, pod.restarts)
        fresh = pod.restarts - before
        if fresh <= 0 or pod.last is None or pod.disrupted:
            continue
        failures[pod.role.value] = failures.get(pod.role.value, 0) + fresh
        if first is None:
            first = failure_of(pod.role, pod.name, pod.last, now)
    return replace(memory, failures=failures, counted=counted, first_failure=first)


def failure_of(role: Role, pod: str, ended: Termination, now: datetime) -> Failure:
    """A container's end as a failure; `now` where it does not say when."""
    return Failure(role.value, pod, ended.reason or "Error", ended.text, ended.at or format_time(now))
