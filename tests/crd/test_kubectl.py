"""What people and tools do with kubectl: explain, diff, apply twice, scale beside server-side apply."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.crd.server import Server
from tests.unit.api.builders import document, fields
from tests.unit.api.test_crd import EXAMPLES, NOT_RUNNING_YET

from asyncppo.api.documents import read_document
from asyncppo.api.schema import spec_schema

RUNNING = [path for path in EXAMPLES if path.name not in NOT_RUNNING_YET]


def test_explain_knows_every_field(server: Server) -> None:
    wanted = {path.rpartition(".")[2] for path, _ in fields(spec_schema())}

    def told() -> set[str]:
        said = server.kubectl("explain", "appo.spec", "--recursive", expect=None)  # at first: no such resource
        return set(re.findall(r"^\s+(\w+)\t", said, re.MULTILINE))

    server.until(
        lambda: wanted <= told(), "every field in kubectl explain"
    )  # the description follows the definition by a moment
    assert "Nucleus sampling" in server.kubectl("explain", "appo.spec.sampling.topP")
    assert "Kubernetes" not in server.kubectl("explain", "appo"), "our own words"


@pytest.mark.parametrize("path", RUNNING, ids=[path.name for path in RUNNING])
def test_applied_twice_nothing_changes(server: Server, path: Path) -> None:
    raw = read_document(path.read_text(encoding="utf-8"), str(path))
    name = raw["metadata"]["name"]
    server.kubectl("diff", "-f", str(path), expect=1)
    assert "created" in server.kubectl("apply", "-f", str(path))
    first = server.get(name)
    server.kubectl("diff", "-f", str(path))
    assert "unchanged" in server.kubectl("apply", "-f", str(path))
    server.kubectl("diff", "--server-side", "--field-manager=kubectl-client-side-apply", "-f", str(path))
    again = server.get(name)
    assert again["metadata"]["generation"] == 1
    assert again["spec"] == first["spec"]


def test_applied_twice_by_the_server_nothing_changes(server: Server) -> None:
    for _ in range(2):
        _apply(server, document())
    assert server.get("test")["metadata"]["generation"] == 1


def test_scale_moves_replicas_and_nothing_else(server: Server) -> None:
    assert server.make(document({"weightSync.minReady": 2})).taken
    before = server.get("test")["spec"]
    server.kubectl("scale", "appo", "test", "--replicas=5")
    after = server.get("test")["spec"]
    assert after["rollout"].pop("replicas") == 5
    before["rollout"].pop("replicas")
    assert after == before


@pytest.mark.parametrize("replicas", [0, 1])
def test_an_autoscaler_may_go_below_min_ready(server: Server, replicas: int) -> None:
    assert server.make(document({"weightSync.minReady": 2})).taken
    answer = server.patch("test", {"spec": {"replicas": replicas}}, "/scale")
    assert answer.taken, answer
    assert server.get("test")["spec"]["rollout"]["replicas"] == replicas


def test_scaling_beyond_the_bound_is_refused(server: Server) -> None:
    assert server.make(document()).taken
    answer = server.patch("test", {"spec": {"replicas": 1025}}, "/scale")
    assert answer.status == 422
    assert "spec.rollout.replicas" in json.dumps(answer.body)


def test_the_scale_subresource_tells_an_autoscaler_what_is_there(server: Server) -> None:
    assert server.make(document()).taken
    status = {"rollouts": {"replicas": 2, "ready": 1, "summary": "1/2", "selector": "asyncppo.io/job=test"}}
    assert server.patch("test", {"status": status}, "/status").taken
    scale = server.ask("GET", f"{server.jobs}/test/scale").body
    assert scale["spec"] == {"replicas": 2}
    assert scale["status"] == {"replicas": 2, "selector": "asyncppo.io/job=test"}


def test_scale_beside_server_side_apply_of_a_manifest_without_replicas(server: Server) -> None:
    _apply(server, document())
    server.kubectl("scale", "appo", "test", "--replicas=3")
    _apply(server, document())
    assert server.get("test")["spec"]["rollout"]["replicas"] == 3


def test_scale_beside_server_side_apply_of_a_manifest_with_replicas(server: Server) -> None:
    """Why docs/kubernetes.md says to leave replicas out where something else scales."""
    manifest = document({"rollout.replicas": 2})
    _apply(server, manifest)
    server.kubectl("scale", "appo", "test", "--replicas=3")
    owners = {
        entry["manager"]
        for entry in server.ask("GET", f"{server.jobs}/test").body["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {}).get("f:rollout", {})
    }
    if owners == {"delivery"}:  # this server does not note who scaled, and scales back
        _apply(server, manifest)
        assert server.get("test")["spec"]["rollout"]["replicas"] == 2
    else:
        assert "conflict" in _apply(server, manifest, expect=1)
        assert server.get("test")["spec"]["rollout"]["replicas"] == 3


def _apply(server: Server, manifest: dict[str, Any], expect: int = 0) -> str:
    options = ("--server-side", "--field-manager=delivery", "-f", "-")
    return server.kubectl("apply", *options, stdin=json.dumps(manifest), expect=expect)
