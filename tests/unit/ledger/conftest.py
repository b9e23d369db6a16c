"""A job's ledger per test; its equations are checked when the test ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.ledger.builders import Job


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here pulls the plug, and waiting for disks makes them slow; test_storage holds the real setting."""
    monkeypatch.setattr("asyncppo_runtime.ledger.database.SYNCHRONOUS", "OFF")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A Barrier job with version 0 published."""
    made = Job(tmp_path / "ledger.db")
    made.publish(0)
    yield made
    made.check()
    made.ledger.close()
