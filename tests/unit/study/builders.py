"""Jobs and results for the tests of studies."""

from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import parse_manifest
from asyncppo.study.results import CellResult, Cost


def job(updates: int = 4, bound: int = 3, seed: int = 0, **old_logits: Any) -> AsyncPPOJob:
    """A tiny job: an engine in bfloat16, a trainer in float32."""
    return parse_manifest(
        {
            "apiVersion": "asyncppo.io/v1alpha1",
            "kind": "AsyncPPOJob",
            "metadata": {"name": "tiny"},
            "spec": {
                "model": {"builtin": {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 32}},
                "environment": {"type": "GuessNumber", "parameters": {"numbers": 8, "tries": 4}, "maxTurns": 4},
                "sampling": {"maxTokens": 1, "contextLength": 16},
                "algorithm": {"updates": updates, "groupSize": 4, "batchGroups": 3, "advantage": "DrGRPO"},
                "optimizer": {"learningRate": 0.02},
                "oldLogits": {"strategy": "Interruption", **old_logits},
                "staleness": {"maxVersions": bound},
                "learner": {"threads": 1},
                "rollout": {"replicas": 1, "concurrency": 64, "engine": {"precision": "BFloat16"}},
                "seed": seed,
            },
        },
        "tiny",
    )


def result(strategy: str, seed: int, reward: float, value: Any = None, **changes: Any) -> CellResult:
    """A cell that came to this reward."""
    fields: dict[str, Any] = {
        "strategy": strategy,
        "exact": strategy in ("Interruption", "Snapshot"),
        "seed": seed,
        "value": value,
        "mode": "virtual",
        "fingerprint": "f",
        "updates": 2,
        "rewards": [0.0, reward],
        "reward": reward,
        "tokens": 10,
        "staleness": 1.0,
        "coverage": 1.0,
        "k3": 0.0,
        "slope": 0.0,
        "mask_fraction": 0.0,
        "clip_fraction": 0.0,
        "cost": Cost(),
    }
    return CellResult(**fields | changes)
