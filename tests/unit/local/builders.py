"""Builders of jobs, statuses and snapshots for the local runner's tests. Owns nothing else."""

from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import parse_manifest
from asyncppo.local.snapshot import Snapshot
from asyncppo.local.supervisor import RoleView
from asyncppo.report.measures import (
    LearnerStatus,
    LedgerTokens,
    LedgerTotals,
    MemberView,
    OldLogits,
    Quantiles,
    Reward,
    Staleness,
    Syncs,
    Throughput,
)


def job(name: str = "guess", annotations: dict[str, str] | None = None, **spec: Any) -> AsyncPPOJob:
    """A valid job; `spec` replaces whole sections."""
    return parse_manifest(
        {
            "apiVersion": "asyncppo.io/v1alpha1",
            "kind": "AsyncPPOJob",
            "metadata": {"name": name, **({"annotations": annotations} if annotations else {})},
            "spec": {
                "model": {"builtin": {}},
                "environment": {"type": "GuessNumber"},
                "algorithm": {"updates": 20},
                "oldLogits": {"strategy": "Interruption"},
                **spec,
            },
        },
        "a test",
    )


def status(**changes: Any) -> LearnerStatus:
    """A learner in the middle of a run."""
    figures: dict[str, Any] = {
        "job": "guess",
        "phase": "Running",
        "update": 120,
        "updates": 300,
        "version": 120,
        "versions": 121,
        "wall_seconds": 61.0,
        "eta_seconds": 90.0,
        "waiting_for": "Batch",
        "batch_progress": 0.62,
        "last_reward": 0.512,
        "reward": Reward(first=0.061, last=0.5, best=0.53),
        "old_logits": OldLogits(strategy="Interruption", exact=True, exact_coverage=1.0),
        "staleness": Staleness(mean=0.83, max=2, histogram={0: 31, 1: 53, 2: 16}),
        "ledger": LedgerTotals(
            leased=16_900,
            received=16_800,
            in_flight=96,
            returned=4,
            trained=16_332,
            discarded={"environment_error": 100, "stale": 68},
            waiting=300,
            tokens=LedgerTokens(sampled=100_000, scored=99_000, discarded={"group_incomplete": 1_000}),
        ),
        "syncs": Syncs(count=120, stall_seconds=Quantiles(p50=0.041, p95=0.082, max=0.3)),
        "throughput": Throughput(tokens_per_second=3045.0, trajectories_per_second=203.0),
        "members": [
            MemberView(name="rollout-0", incarnation=1, state="Ready", version=120, running=32, sampled_tokens=45_213),
            MemberView(name="rollout-1", incarnation=2, state="Ready", version=120, paused=True),
        ],
        "time": {"Training": 30.0, "Batch": 20.0, "Sync": 11.0},
    }
    return LearnerStatus(**(figures | changes))


def snapshot(**changes: Any) -> Snapshot:
    """A moment in the middle of a run."""
    figures: dict[str, Any] = {
        "job": "guess",
        "folder": "runs/guess",
        "strategy": "Interruption",
        "exact": True,
        "bound": 2,
        "updates": 300,
        "phase": "running",
        "elapsed": 61.0,
        "status": status(),
        "silence": 0.1,
        "rewards": [update / 300 for update in range(120)],
        "roles": [
            RoleView("learner", "running"),
            RoleView("rollout-0", "running"),
            RoleView("rollout-1", "running", 1),
        ],
    }
    return Snapshot(**(figures | changes))
