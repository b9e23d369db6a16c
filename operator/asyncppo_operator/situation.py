"""Everything a status is made from, in one place.

Owns the shape. Does not own how it is gathered (`reconcile.py`) nor told (`status.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.report.measures import LearnerStatus
from asyncppo_operator.memory import Memory
from asyncppo_operator.names import Role
from asyncppo_operator.plan.acceptance import Acceptance
from asyncppo_operator.plan.lifecycle import Decision
from asyncppo_operator.views import PodView


@dataclass(frozen=True)
class Problem:
    """Why the operator could not do its work: a CamelCase reason and a message that says what to do."""

    reason: str
    message: str


@dataclass(frozen=True)
class SyncReport:
    """What the job's coordinator says of itself. error: why the newest sync did not end; empty when it did."""

    running: bool = False
    error: str = ""


@dataclass(frozen=True)
class Situation:
    """One job at one moment. desired: pods wanted per role. shortfalls: why a StatefulSet makes no pods (quota, admission).

    settled: the plan was carried out, as far as `problem` does not say otherwise; None: not known yet. learner: its
    newest answer. learner_age: seconds since it came; None when there was none yet. learner_error: why it does not
    answer.
    """

    job: str
    generation: int
    now: datetime
    acceptance: Acceptance
    memory: Memory
    decision: Decision | None = None
    spec: AsyncPPOJobSpec | None = None
    desired: Mapping[Role, int] = field(default_factory=dict)
    pods: Sequence[PodView] = ()
    shortfalls: Mapping[Role, str] = field(default_factory=dict)
    learner: LearnerStatus | None = None
    learner_age: float | None = None
    learner_error: str = ""
    sync: SyncReport = SyncReport()
    problem: Problem | None = None
    settled: bool | None = True

    def pods_of(self, role: Role) -> list[PodView]:
        """The role's pods that are not going."""
        return [pod for pod in self.pods if pod.role is role and not pod.deleting]
