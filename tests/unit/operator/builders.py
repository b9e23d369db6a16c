"""Builders for the operator's tests: jobs, pods, learner answers, as small as each test lets them be."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.report.measures import (
    LearnerStatus,
    LedgerTokens,
    LedgerTotals,
    MemberView,
    OldLogits,
    Staleness,
)
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.settings import Settings
from asyncppo_operator.validation import validated
from asyncppo_operator.views import PodView, Termination

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
SETTINGS = Settings()


def raw_job(name: str = "guess", generation: int = 1, **spec: Any) -> dict[str, Any]:
    """A job as the API server has it; `spec` replaces top-level fields."""
    base: dict[str, Any] = {
        "model": {"builtin": {}},
        "environment": {"type": "GuessNumber"},
        "algorithm": {"updates": 10},
        "oldLogits": {"strategy": "Interruption"},
    }
    return {
        "apiVersion": "asyncppo.io/v1alpha1",
        "kind": "AsyncPPOJob",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": UID,
            "generation": generation,
            "resourceVersion": "7",
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": base | deepcopy(spec),
    }


def job(name: str = "guess", **spec: Any) -> AsyncPPOJob:
    """The accepted job."""
    return validated(raw_job(name, **spec))


def pod(role: Role, ordinal: int = 0, **fields: Any) -> PodView:
    """A pod that runs and is ready."""
    name = names.pod("guess", role, ordinal)
    usual: dict[str, Any] = {
        "name": name,
        "uid": f"uid-of-{name}",
        "role": role,
        "ordinal": ordinal,
        "job_uid": UID,
        "ip": f"10.0.0.{ordinal + 1}",
        "ready": True,
        "running": True,
    }
    return PodView(**(usual | fields))


def crash(exit_code: int = 1, message: str = "boom", at: str = "2026-01-02T03:00:00Z") -> Termination:
    """A bad end."""
    return Termination(exit_code=exit_code, reason="Error", message=message, at=at)


def answer(phase: str = "Running", **fields: Any) -> LearnerStatus:
    """What a learner says in the middle of a good run."""
    usual: dict[str, Any] = {
        "job": "guess",
        "phase": phase,
        "update": 3,
        "updates": 10,
        "version": 3,
        "eta_seconds": 70.0,
        "last_reward": 0.25,
        "old_logits": OldLogits(strategy="Interruption", exact=True, exact_coverage=1.0),
        "staleness": Staleness(mean=0.5, max=1, histogram={0: 10, 1: 10}),
        "ledger": LedgerTotals(
            leased=10,
            received=9,
            in_flight=1,
            trained=8,
            waiting=1,
            tokens=LedgerTokens(sampled=20, scored=20, trained=20),
        ),
        "members": [
            MemberView(name="guess-rollout-0", incarnation=1, state="Ready", version=3),
            MemberView(name="guess-rollout-1", incarnation=2, state="Ready", version=2),
        ],
    }
    return LearnerStatus(**(usual | fields))


def raw_pod(role: Role = Role.ROLLOUT, ordinal: int = 0, **status: Any) -> dict[str, Any]:
    """A pod as the API server has it."""
    return {
        "metadata": {
            "name": names.pod("guess", role, ordinal),
            "namespace": "lab",
            "uid": f"u{ordinal}",
            "labels": {**names.labels("guess", role), names.LABEL_UID: UID},
            "annotations": {names.ANNOTATION_TEMPLATE: "abc"},
        },
        "spec": {"nodeName": "n"},
        "status": status,
    }
