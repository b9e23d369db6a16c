"""The definition is upgraded under live jobs: they stay, get the new defaults, and can be edited and deleted as before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.crd.server import Server
from tests.unit.api.builders import document
from tests.unit.api.test_rules import VALID

from asyncppo.api.crd import VALIDATIONS, crd
from asyncppo.api.schema import Schema, at, spec_schema, with_defaults
from asyncppo_operator.validation import validated

EARLIER = Path(__file__).with_name("earlier-definition.yaml")
NOW_REFUSED: dict[str, dict[str, Any]] = {
    "gpus": {"learner.resources.limits": {"nvidia.com/gpu": 8}},
    "nccl": {"weightSync.transport": "NCCL"},
    "threads": {"learner.threads": 100_000_000},
    "1st": {},
}
"""Jobs that the earlier definition took and this one refuses as new ones."""


def earlier_definition() -> Schema:
    """As it was, but for the defaults for which a server with rules would not have taken it."""
    definition: Schema = yaml.safe_load(EARLIER.read_text(encoding="utf-8"))
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for path in ("sampling", "algorithm.discrepancy", "rollout.engine"):
        node = at(spec, path)
        assert node["default"] == {}
        node["default"] = with_defaults(node, {})
    return definition


def taken_then(definition: Schema, changes: dict[str, Any]) -> bool:
    """Whether the earlier definition took such a job: it names no field that came later, nor one that had a rule then."""
    spec = at(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "spec")
    try:
        for path in changes:
            at(spec, path)
    except KeyError:
        return False
    return "weightSync.minReady" not in changes


@pytest.fixture
def earlier(server: Server) -> Iterator[Server]:
    """The server with the earlier definition; this one comes back at the end."""
    assert server.define(earlier_definition()).taken
    server.until(lambda: server.try_new(document(NOW_REFUSED["threads"])).taken, "the earlier definition in force")
    yield server
    server.clear()
    _upgrade(server)


def _upgrade(server: Server) -> None:
    assert server.define(crd()).taken
    server.until(lambda: not server.try_new(document(NOW_REFUSED["threads"])).taken, "this definition in force")


def test_jobs_live_on(earlier: Server, judges: bool) -> None:
    server = earlier
    definition = earlier_definition()
    made = {f"job-{number}": changes for number, changes in enumerate(VALID) if taken_then(definition, changes)}
    assert len(made) > 20
    made |= NOW_REFUSED
    for name, changes in made.items():
        answer = server.make(document(changes) | {"metadata": {"name": name}})
        assert answer.taken, (name, answer)
        assert server.patch(name, {"status": {"phase": "Running"}}, "/status").taken
    _upgrade(server)
    for name, changes in made.items():
        job = server.get(name)
        assert job["spec"] == with_defaults(spec_schema(), job["spec"]), "every default is filled in"
        assert job["metadata"]["generation"] == 1
        if name not in NOW_REFUSED:
            assert job["spec"] == with_defaults(spec_schema(), document(changes)["spec"])
            assert validated(job).metadata.name == name
        if name in NOW_REFUSED and not judges:
            continue  # a server that knows no rules judges the whole job at every edit
        for patch, what in (
            ({"status": {"phase": "Recovering"}}, "/status"),
            ({"spec": {"suspend": True}}, ""),
            ({"spec": {"replicas": 3}}, "/scale"),
            ({"metadata": {"labels": {"team": "lab"}}}, ""),
        ):
            answer = server.patch(name, patch, what)
            assert answer.taken, (name, patch, answer)
    for name in NOW_REFUSED if judges else ():
        new = document(NOW_REFUSED[name]) | {"metadata": {"name": "2nd" if name == "1st" else "new"}}
        assert not server.try_new(new).taken, name


def test_a_job_made_before_is_fixed_as_one_made_now(earlier: Server, judges: bool) -> None:
    server = earlier
    assert server.make(document()).taken
    _upgrade(server)
    if not judges:
        pytest.skip("this server knows no rules in definitions")
    [cause] = server.patch("test", {"spec": {"seed": 7}}).causes
    assert (cause.field, "(was 0, now 7)" in cause.message) == ("spec.seed", True)


def test_the_earlier_definition_had_rules_where_this_one_has() -> None:
    """Guards against an upgrade that is tried with something else."""
    spec = earlier_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert len(at(spec, "rollout.engine")[VALIDATIONS]) == 3
