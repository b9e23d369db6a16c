"""Faults that must end a job, with the real programs: it stops with the cause and the last good checkpoint, and nothing is half-written.

A resumed run then goes on from there to its end.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.fleet import Case, Fleet, Verdict
from tests.faults.jobs import job

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("guards"), 2) as found:
        yield found


def failed(fleet: Fleet, name: str, plan: str, folder: Path | None = None) -> tuple[Case, Verdict]:
    """A run that ends as failed, with its books in order."""
    case = Case(name, job("Barrier"), plan, {})
    verdict = fleet.submit(case).result()
    assert verdict.driven is not None, verdict.problems
    assert verdict.driven.phase == "Failed", verdict
    assert verdict.driven.met, "the fault happened"
    assert verdict.audit is not None
    found = verdict.audit
    assert (found.lost, found.mislabelled, found.twice, found.drift) == (0, 0, 0, ""), verdict
    return case, verdict


def resumed(fleet: Fleet, case: Case) -> None:
    """Once the cause is gone, the same folder goes on to the end."""
    verdict = fleet.submit(dataclasses.replace(case, plan="", resume=True)).result()
    assert not verdict.problems, verdict


@pytest.mark.parametrize("point", ["Weights", "Checkpoint"])
def test_a_volume_full_at_a_publication(fleet: Fleet, point: str) -> None:
    case, verdict = failed(fleet, f"full-{point}".lower(), f"learner:{point}:before:full@3")
    assert verdict.driven is not None
    assert "version 2 was not published" in verdict.driven.message
    assert "No space left on device" in verdict.driven.message
    assert "Last good checkpoint: 1" in verdict.driven.message
    run = fleet.home(case) / "run"
    assert not [path for path in run.rglob("*") if path.name.endswith((".draft", ".tmp"))], "nothing half-written"
    resumed(fleet, case)


@pytest.mark.parametrize("commit", [12, 25, 40], ids=str)
def test_a_volume_full_under_the_ledger(fleet: Fleet, commit: int) -> None:
    """Whoever needed that commit: a rollout's call, housekeeping, the trainer."""
    case, verdict = failed(fleet, f"full-ledger-{commit}", f"learner:Commit:before:full@{commit}")
    assert verdict.driven is not None
    assert "the volume is full; nothing was written. Free space, then resume" in verdict.driven.message
    assert "Last good checkpoint" in verdict.driven.message
    resumed(fleet, case)


def test_a_version_that_every_rollout_refuses_is_not_announced(fleet: Fleet) -> None:
    case, verdict = failed(fleet, "refused", "learner:Weights:after:truncate@3")
    assert verdict.driven is not None
    assert "every rollout refused version 2" in verdict.driven.message
    assert "Last good checkpoint" in verdict.driven.message
    said = (fleet.home(case) / "run" / "logs" / "rollout-0.log").read_text()
    assert "version 2 is loaded" not in said
    assert "version 1 is loaded" in said
