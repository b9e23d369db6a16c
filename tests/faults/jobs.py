"""The small job that is run under faults, one for every column of the protocol. Owns its manifest."""

UPDATES = 5
COLUMNS: dict[str, dict[str, object]] = {
    "Barrier": {"strategy": "Interruption", "scoring": "Barrier"},
    "Overlapped": {"strategy": "Interruption", "scoring": "Overlapped"},
    "Snapshot": {"strategy": "Snapshot"},
    "Dedicated": {"strategy": "Dedicated"},
}
"""Column → spec.oldLogits."""


def job(column: str, *, seed: int = 0, updates: int = UPDATES, rollouts: int = 2) -> dict[str, object]:
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
            "oldLogits": COLUMNS[column],
            "oldLogit": {"replicas": 1 if column == "Dedicated" else 0},
            "learner": {"threads": 1},
            "rollout": {"replicas": rollouts, "concurrency": 8},
            "weightSync": {"pauseTimeoutSeconds": 2.0, "loadTimeoutSeconds": 4.0},
            "checkpoint": {"everyUpdates": 1},
            "backoffLimit": 100,
            "activeDeadlineSeconds": 180,
            "seed": seed,
        },
    }
