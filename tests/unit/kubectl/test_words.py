"""What `kubectl asyncppo status` says of an environment that fails, and of what one may not expect."""

from typing import Any

from asyncppo.kubectl.diagnosis import diagnose
from asyncppo.kubectl.words import status


def job(**changes: Any) -> dict[str, Any]:
    """A running job as the API server has it."""
    ledger = {"balanced": True, "trained": 4, "waiting": 1, "discarded": 15, "inFlight": 2}
    figures = {"phase": "Running", "message": "update 1 of 10", "ledger": ledger}
    return {"metadata": {"name": "guess", "namespace": "rl"}, "status": figures | changes}


def told(one: dict[str, Any]) -> str:
    return status(one, diagnose(one, {}, []))


def test_discards_are_a_share_with_a_reason() -> None:
    ledger = job()["status"]["ledger"] | {"discardedShare": 0.75, "discardedReason": "environment_error"}
    assert (
        "balanced; trajectories trained 4, waiting 1, inFlight 2, discarded 15 (75.0%, mostly environment_error)"
        in told(job(ledger=ledger))
    )


def test_a_status_of_an_older_operator_is_read_too() -> None:
    assert "discarded 15\n" in told(job())


def test_notes_have_a_line_each() -> None:
    words = told(job(notes=["the Linear schedule now ends at update 6", "2 trajectories were discarded"]))
    assert "note        the Linear schedule now ends at update 6\n" in words
    assert "note        2 trajectories were discarded\n" in words


def test_an_environment_that_fails_is_a_trouble_with_an_advice() -> None:
    failing = {"type": "EnvironmentHealthy", "status": "False", "reason": "EpisodesFail", "message": "OSError: gone"}
    words = told(job(conditions=[failing]))
    assert "healthy     no" in words
    assert "EnvironmentHealthy: OSError: gone" in words
    assert "mend the environment" in words
