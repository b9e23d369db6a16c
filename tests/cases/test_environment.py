"""What an environment raises, answers or does to the event loop costs its own episode; what can only fail is refused at start."""

import importlib.util
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cases.drive import HERE, Outcome, run_case

from asyncppo.wire.experience import Trajectory

pytestmark = pytest.mark.cases


def endings(outcome: Outcome) -> dict[int, set[tuple[str, str]]]:
    """Task index → the endings of its trajectories and what was said of them, of the run's ledger."""
    found: dict[int, set[tuple[str, str]]] = {}
    with sqlite3.connect(outcome.folder / "ledger.db") as db:
        rows = db.execute(
            "SELECT trajectories.group_id, end_reason, body FROM trajectories LEFT JOIN bodies USING (lease_id)"
        ).fetchall()
    for index, end_reason, body in rows:
        error = msgspec.msgpack.decode(body, type=Trajectory).error if body else ""
        found.setdefault(index, set()).add((end_reason, error))
    return found


def world_of(case: str) -> Any:
    specification = importlib.util.spec_from_file_location(f"world_of_{case}", HERE / case / "world.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_odd_environments_cost_their_own_episodes_only(tmp_path: Path) -> None:
    outcome = run_case("odd-environment", tmp_path / "run")
    assert outcome.code == 0, outcome.output
    assert outcome.summary["updates"] == 8
    world = world_of("odd-environment")
    found = endings(outcome)
    for place, (name, (says, *_)) in enumerate(world.FAILS.items()):
        for end_reason, error in found.get(2 * place + 1, {("never ended", "")}):
            if error == "ValueError: once is enough":
                continue
            assert end_reason in ("environment_error", "environment_timeout"), name
            assert says in error, name
    for place, name in enumerate(world.COUNTS):
        for end_reason, error in found.get(2 * place, {("never ended", "")}):
            assert end_reason in ("done", "max_turns", "overlong"), f"{name}: {error}"
    assert "Traceback" not in outcome.output
