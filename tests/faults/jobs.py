"""The small job that is run under faults, in every form that old log-probs can be had in. Owns its manifest and the forms' names."""

from asyncppo.api.correction import OldLogitsSpec
from asyncppo.sync.columns import Column, column_of

UPDATES = 5
VARIANTS: dict[str, dict[str, object]] = {
    "Barrier": {"strategy": "Interruption", "scoring": "Barrier"},
    "Overlapped": {"strategy": "Interruption", "scoring": "Overlapped"},
    "SnapshotDisk": {"strategy": "Snapshot", "snapshot": {"medium": "Disk"}},
    "SnapshotMemory": {"strategy": "Snapshot", "snapshot": {"medium": "Memory"}},
    "Dedicated": {"strategy": "Dedicated"},
    "EWMA": {"strategy": "EWMA"},
    "LogLinear": {"strategy": "LogLinear"},
    "Linear": {"strategy": "Linear"},
    "Recompute": {"strategy": "Recompute"},
    "Rollout": {"strategy": "Rollout"},
}
"""Variant → spec.oldLogits. Several may share a column of the protocol."""


def old_logits(variant: str) -> OldLogitsSpec:
    """What a variant's job says of its old log-probs."""
    return OldLogitsSpec.model_validate(VARIANTS[variant])


def column(variant: str) -> Column:
    """The column of the protocol that a variant's job goes through."""
    spec = old_logits(variant)
    return column_of(spec.strategy, spec.scoring)


def job(variant: str, *, seed: int = 0, updates: int = UPDATES, rollouts: int = 2) -> dict[str, object]:
    """A manifest: a policy of a few thousand parameters, 16 trajectories an update, deadlines of seconds."""
    return {
        "apiVersion": "asyncppo.io/v1alpha1",
        "kind": "AsyncPPOJob",
        "metadata": {"name": "under-faults"},
        "spec": {
            "model": {"builtin": {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 32}},
            "environment": {"type": "GuessNumber", "parameters": {"delaySeconds": 0.01, "delayTail": 1.5}},
            "sampling": {"maxTokens": 1, "contextLength": 32},
            "algorithm": {"updates": updates, "groupSize": 4, "batchGroups": 4},
            "optimizer": {"learningRate": 0.01},
            "oldLogits": VARIANTS[variant],
            "oldLogit": {"replicas": 1 if variant == "Dedicated" else 0},
            "learner": {"threads": 1},
            "rollout": {"replicas": rollouts, "concurrency": 8},
            "weightSync": {"pauseTimeoutSeconds": 2.0, "loadTimeoutSeconds": 4.0},
            "checkpoint": {"everyUpdates": 1},
            "backoffLimit": 100,
            "activeDeadlineSeconds": 180,
            "seed": seed,
        },
    }
