"""What is refused before anything is started."""

from pathlib import Path

import pytest
from tests.unit.local.builders import job

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError
from asyncppo.local.prepare import Request, looks_like_a_path, prepared, resolve_model, with_spec
from asyncppo.wire.client import WireClient


async def nobody(client: WireClient, learner: str, job: AsyncPPOJob) -> None:
    raise AssertionError("nothing is started here")


def pretrained(name: str) -> AsyncPPOJob:
    """A job that trains a model of that name."""
    return job(model={"pretrained": name})


def test_a_model_folder_is_found_beside_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for name in ("models/mine", "./models/mine", str(tmp_path / "models" / "mine")):
        assert resolve_model(pretrained(name), tmp_path).spec.model.pretrained == str(tmp_path / "models" / "mine")


def test_a_hub_id_stays(tmp_path: Path) -> None:
    assert resolve_model(pretrained("owner/name"), tmp_path).spec.model.pretrained == "owner/name"


@pytest.mark.parametrize("name", ["./none", "../none", "/none/at/all", "~/none-at-all", "a/b/c", "none.gguf", "none/"])
def test_a_path_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    assert looks_like_a_path(name)
    with pytest.raises(UserError, match=r"spec\.model\.pretrained: .* does not exist"):
        resolve_model(pretrained(name), tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [({"suspend": True}, "spec.suspend"), ({"rollout": {"replicas": 0}}, "spec.rollout.replicas")],
)
def test_jobs_that_cannot_go_on_here(tmp_path: Path, spec: dict[str, object], message: str) -> None:
    request = Request(job=job(**spec), home=tmp_path, output=tmp_path / "run")
    with pytest.raises(UserError, match=message), prepared(request, nobody):
        raise AssertionError("started")
    assert not (tmp_path / "run").exists()


def test_a_refused_run_makes_no_folder(tmp_path: Path) -> None:
    request = Request(job=pretrained("./none"), home=tmp_path, output=tmp_path / "run")
    with pytest.raises(UserError), prepared(request, nobody):
        raise AssertionError("started")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    request = Request(job=job(), home=tmp_path, output=tmp_path / "file" / "run")
    with pytest.raises(UserError, match="choose another --output"), prepared(request, nobody):
        raise AssertionError("started")


def test_a_prepared_run_has_ports_of_its_own(tmp_path: Path) -> None:
    request = Request(job=job(rollout={"replicas": 3}), home=tmp_path, output=tmp_path / "run")
    with prepared(request, nobody) as run:
        ports = [run.addresses.learner, *run.addresses.rollouts.values()]
        assert len(set(ports)) == 4
        assert list(run.addresses.rollouts) == ["rollout-0", "rollout-1", "rollout-2"]
        assert run.token == (tmp_path / "run" / "token").read_text().strip()


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_a_port_that_is_none(tmp_path: Path, port: int) -> None:
    request = Request(job=job(), home=tmp_path, output=tmp_path / "run", port=port)
    with pytest.raises(UserError, match="--port"), prepared(request, nobody):
        raise AssertionError("started")
    assert not (tmp_path / "run").exists()


def test_overrides_keep_the_rest_and_obey_the_rules() -> None:
    changed = with_spec(job(seed=7), {"algorithm": {"updates": 5}}, "the options")
    assert (changed.spec.algorithm.updates, changed.spec.seed) == (5, 7)
    with pytest.raises(UserError, match=r"the options.*\n.*spec\.algorithm\.updates: found 0"):
        with_spec(job(), {"algorithm": {"updates": 0}}, "the options")
