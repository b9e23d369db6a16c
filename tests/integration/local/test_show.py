"""`asyncppo show` on a real ledger, also while a learner has it open."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.local.test_cli import asyncppo
from tests.unit.ledger.builders import Job, trajectory
from tests.unit.local.builders import job

from asyncppo.api.manifest import dump_manifest


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Job]:
    """A run: group 1 trained into version 2 after being sampled under 0 and 1, group 2 waiting, one lease in flight."""
    (tmp_path / "job.json").write_text(dump_manifest(job()))
    ledger = Job(tmp_path / "ledger.db")
    ledger.publish(0)
    member = ledger.member()
    leases = ledger.grant(member, 5)
    partial = trajectory(leases[0], (0,), finished=False)
    ledger.ledger.receive(member, [partial], ledger.now)
    ledger.score_all()
    ledger.seal(member, [partial])
    ledger.publish(1)
    ledger.ledger.finish(ledger.ledger.view().epoch, "c", [member.target], [], {}, ledger.now)
    finished = [trajectory(leases[0], (0, 1), reward=0.9), *(trajectory(lease, (1,)) for lease in leases[1:4])]
    ledger.ledger.receive(member, finished, ledger.now)
    ledger.sync(member, trained=[leases[0].group_id])
    yield ledger
    ledger.ledger.close()


def test_the_listing_has_the_newest_first(ledger: Job) -> None:
    folder = ledger.path.parent
    told = json.loads(asyncppo(folder, "show", ".", "--json").stdout)
    assert (told["job"], told["received"]) == ("guess", 4)
    lines = {line["id"]: line for line in told["trajectories"]}
    assert list(lines) == sorted(lines, reverse=True)
    oldest = told["trajectories"][-1]
    assert (oldest["fate"], oldest["reward"], oldest["versions"], oldest["staleness"]) == ("Trained", 0.9, [0, 1], 1)
    assert [line["fate"] for line in told["trajectories"]] == ["Waiting", "Waiting", "Trained", "Trained"]
    assert told["trajectories"][0]["staleness"] is None
    few = json.loads(asyncppo(folder, "show", ".", "--json", "--limit", "2").stdout)
    assert few["trajectories"] == told["trajectories"][:2]


def test_one_trajectory_token_by_token(ledger: Job) -> None:
    folder = ledger.path.parent
    identity = json.loads(asyncppo(folder, "show", ".", "--json").stdout)["trajectories"][-1]["id"]
    told = json.loads(asyncppo(folder, "show", ".", "--json", "--trajectory", str(identity)).stdout)
    assert [token["role"] for token in told["tokens"]] == ["environment", *["model"] * 3] * 2
    assert [token.get("version") for token in told["tokens"]] == [None, 0, 0, 0, None, 1, 1, 1]
    first = told["tokens"][1]
    assert (first["behaviorLogprob"], first["oldLogprob"], first["mask"]) == (-0.25, pytest.approx(-0.24), True)
    assert told["text"].startswith("<bos> 7 7 7 <bos> 8")
    assert [part["kind"] for part in told["segments"]] == ["exact_interrupt"] * 2
    assert told["segments"][1]["scorerHash"] == "train-1"

    screen = asyncppo(folder, "show", ".", "--trajectory", str(identity)).stdout
    assert "rollout log-p" in screen
    assert "-0.250000" in screen


def test_the_mask_is_the_training_steps_own(ledger: Job) -> None:
    folder = ledger.path.parent
    strict = job(algorithm={"updates": 20, "discrepancy": {"bound": 1.005}})
    (folder / "job.json").write_text(dump_manifest(strict))
    told = json.loads(asyncppo(folder, "show", ".", "--json", "--trajectory", "1").stdout)
    assert not any(token["mask"] for token in told["tokens"])  # every |old - behavior| is 0.01 > log 1.005


@pytest.mark.parametrize("identity", ["0", "-3", "99", "99999999999999999999999"])
def test_a_trajectory_that_is_not_there(ledger: Job, identity: str) -> None:
    ended = asyncppo(ledger.path.parent, "show", ".", f"--trajectory={identity}")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"no trajectory {identity} in this run" in ended.stderr


def test_a_lease_in_flight_can_be_looked_at(ledger: Job) -> None:
    told = json.loads(asyncppo(ledger.path.parent, "show", ".", "--json", "--trajectory", "5").stdout)
    assert told["line"]["fate"] == "InFlight"
    assert told["pruned"]
