"""The status: what the operator writes passes the models, and so the CRD; what it would lose is refused."""

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from asyncppo.api.schema import structural
from asyncppo.api.status import JobStatus

FULL: dict[str, Any] = {
    "observedGeneration": 2,
    "phase": "Running",
    "message": "update 3 of 60",
    "conditions": [
        {
            "type": "Exact",
            "status": "True",
            "observedGeneration": 2,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "Verified",
            "message": "every old log-prob is that of the version that sampled",
        }
    ],
    "startTime": "2026-01-02T03:04:05Z",
    "strategy": "Interruption",
    "version": 3,
    "versions": {"learner": 3, "oldestRollout": 2, "newestRollout": 3, "skew": 1, "members": 2},
    "progress": {"update": 3, "updates": 60, "etaSeconds": 57, "percent": 5, "summary": "3/60", "waitingFor": "Batch"},
    "rollouts": {"desired": 2, "replicas": 2, "ready": 2, "summary": "2/2", "selector": "a=b"},
    "staleness": {"mean": 0.7, "max": 2, "bound": 2, "summary": "0.70 (max 2)"},
    "oldLogits": {"exact": True, "exactCoverage": 1, "violations": 0, "fallbacks": 0, "summary": "Yes"},
    "discrepancy": {"k3": 1e-9, "maxAbs": 0.001, "slope": 0},
    "reward": {"newest": 0.4, "first": 0.1, "last": 0.4, "best": 0.4},
    "ledger": {"balanced": True, "leased": 9, "received": 8, "inFlight": 1, "trained": 8, "discarded": 0},
    "syncs": {"count": 3, "fenced": 0, "pauseSecondsP95": 0.1, "stallSecondsP95": 0.2},
    "throughput": {"tokensPerSecond": 1e4, "trajectoriesPerSecond": 300},
    "failures": {"rollout": 1},
    "countedRestarts": {"0000-uid": 1},
    "firstFailure": {
        "role": "rollout",
        "pod": "p",
        "reason": "OOMKilled",
        "message": "x",
        "at": "2026-01-02T03:04:05Z",
    },
    "storageUid": "1111-uid",
}


def test_a_full_status_passes_and_comes_out_again() -> None:
    parsed = JobStatus.model_validate_json(json.dumps(FULL), strict=True)
    assert parsed.model_dump(mode="json", by_alias=True, exclude_none=True) == FULL
    jsonschema.Draft4Validator(structural(JobStatus)).validate(FULL)


def test_an_empty_status_passes() -> None:
    assert JobStatus.model_validate_json("{}", strict=True) == JobStatus()


@pytest.mark.parametrize(
    "wrong",
    [
        {"phse": "Running"},
        {"phase": "Working"},
        {"progress": {"done": 3}},
        {"conditions": [{"type": "Exact"}]},
        {"version": "3"},
        {"staleness": {"mean": "0.1"}},
    ],
)
def test_what_an_api_server_would_prune_or_refuse_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobStatus.model_validate_json(json.dumps(wrong), strict=True)
