"""What is not built yet is refused plainly. The rows themselves are not repeated here: they come and go."""

from typing import Any

import pytest
from tests.unit.api.builders import document, stored
from tests.unit.api.cel import Refusal, refused

from asyncppo.api.implemented import NOT_BUILT, ONLY, WITHOUT_DEVICES, built_values, not_built
from asyncppo.api.manifest import parse_manifest
from asyncppo.api.problems import ManifestError
from asyncppo.api.schema import at, spec_schema
from asyncppo_operator.names import Role


@pytest.mark.parametrize(("path", "value"), [*NOT_BUILT, *((path, value / 2 + 0.25) for path, value in ONLY)])
def test_a_row_is_refused_with_path_and_alternative(path: str, value: Any) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document({path: value}), "m.yaml")
    problem = next(p for p in caught.value.problems if "not implemented yet" in p.what)
    assert problem.path == f"spec.{path}"
    assert str(value) in problem.what
    assert problem.remedy.startswith("use ")


@pytest.mark.parametrize("path", sorted({path for path, _ in NOT_BUILT}))
def test_rows_are_values_of_their_enum_and_leave_some(path: str) -> None:
    enum = at(spec_schema(), path)["enum"]
    rows = [value for row, value in NOT_BUILT if row == path]
    assert set(rows) < set(enum)
    assert len(rows) == len(set(rows))
    assert built_values(path) == [value for value in enum if value not in rows]


def test_a_row_that_goes_makes_its_value_an_alternative() -> None:
    table = [("rollout.engine.type", "VLLM")]
    assert built_values("rollout.engine.type", table) == ["Torch"]
    assert built_values("rollout.engine.type", []) == ["Torch", "VLLM"]


@pytest.mark.parametrize(("path", "value"), [*NOT_BUILT, *((path, value / 2 + 0.25) for path, value in ONLY)])
def test_a_server_with_rules_refuses_a_row_in_the_same_words(path: str, value: Any) -> None:
    [problem] = not_built(document({path: value})["spec"])
    assert refused(stored({path: value})) == [Refusal(path, f"{problem.what}; {problem.remedy}")]


DEVICES = ["nvidia.com/gpu", "amd.com/gpu", "habana.ai/gaudi", "example.org/x"]


@pytest.mark.parametrize("role", ["learner", "oldLogit"])
@pytest.mark.parametrize("kind", ["requests", "limits"])
@pytest.mark.parametrize("device", DEVICES)
def test_devices_where_no_program_uses_them(role: str, kind: str, device: str) -> None:
    changes = {f"{role}.resources.{kind}": {device: 8, "cpu": 1, "hugepages-2Mi": "4Mi"}}
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document(changes), "m.yaml")
    [problem] = caught.value.problems
    assert problem.path == f'spec.{role}.resources.{kind}["{device}"]'
    assert "not implemented yet" in problem.what
    [refusal] = refused(stored(changes))
    assert refusal.path == f"{role}.resources.{kind}"
    assert problem.what.startswith(refusal.message.partition(";")[0])


@pytest.mark.parametrize(("role", "container"), [("learner", "learner"), ("oldLogit", "old-logit")])
def test_devices_in_the_overlay_of_the_program_are_refused_too(role: str, container: str) -> None:
    own = {"name": container, "resources": {"limits": {"nvidia.com/gpu": 1}}}
    other = {"name": "side", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    [problem] = not_built(document({f"{role}.template": {"spec": {"containers": [other, own]}}})["spec"])
    assert problem.path == f'spec.{role}.template.spec.containers[1].resources.limits["nvidia.com/gpu"]'


def test_rollouts_use_devices() -> None:
    changes = {"rollout.resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 1}}}
    assert parse_manifest(document(changes), "m.yaml").spec.rollout.resources.limits == {"nvidia.com/gpu": 1}
    assert refused(stored(changes)) == []


def test_containers_are_called_as_the_operator_calls_them() -> None:
    assert {container for _, container, _ in WITHOUT_DEVICES} < {role.value for role in Role}


def test_defaults_are_built() -> None:
    assert not_built(stored()) == []


@pytest.mark.parametrize(
    "spec",
    [
        None,
        3,
        [],
        {"sampling": 3},
        {"sampling": {"topP": "x"}},
        {"sampling": {"topP": True}},
        {"learner": {"resources": 3, "template": {"spec": {"containers": {"name": "learner"}}}}},
        {"learner": {"resources": {"limits": ["nvidia.com/gpu"]}, "template": {"spec": {"containers": [3, None]}}}},
    ],
)
def test_a_spec_that_is_none_has_no_such_problem(spec: Any) -> None:
    assert not_built(spec) == []
