"""What is not built yet is refused plainly. The rows themselves are not repeated here: they come and go."""

from typing import Any

import pytest
from tests.unit.api.builders import document, stored

from asyncppo.api.implemented import NOT_BUILT, ONLY, built_values, not_built
from asyncppo.api.manifest import parse_manifest
from asyncppo.api.problems import ManifestError
from asyncppo.api.schema import at, spec_schema


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


def test_defaults_are_built() -> None:
    assert not_built(stored()) == []


@pytest.mark.parametrize(
    "spec", [None, 3, [], {"sampling": 3}, {"sampling": {"topP": "x"}}, {"sampling": {"topP": True}}]
)
def test_a_spec_that_is_none_has_no_such_problem(spec: Any) -> None:
    assert not_built(spec) == []
