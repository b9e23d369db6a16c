"""What may change on a job: each field of the spec tried, in Python and in CEL; and the fingerprint over what may not."""

from typing import Any

import pytest
from tests.unit.api.builders import another, leaves, spec, stored
from tests.unit.api.cel import Refusal, refused

from asyncppo.api.changes import CHANGEABLE, changes_refused, fixed_paths, job_fingerprint
from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.problems import shown
from asyncppo.api.schema import Schema, at, spec_schema

LEAVES = list(leaves(spec_schema()))
BASE: dict[str, Any] = {"algorithm.critic": {}, "model": {"builtin": {}, "pretrained": "some/model"}}
"""Optional objects are there, so that each of their fields can be changed; rules are not looked at here."""


def changeable(path: str) -> bool:
    return any(path == may or path.startswith(f"{may}.") for may in CHANGEABLE)


def transitions(new: dict[str, Any], old: dict[str, Any]) -> list[Refusal]:
    """What the CEL rules say of the change."""
    return refused(stored(new), stored(old))


@pytest.mark.parametrize(("path", "node"), LEAVES, ids=[path for path, _ in LEAVES])
def test_each_field_changes_or_is_refused(path: str, node: Schema) -> None:
    value = another(node, _get(stored(BASE), path))
    old, new = spec(BASE), spec(BASE | {path: value})
    problems = changes_refused(old, new)
    found = transitions(BASE | {path: value}, BASE)
    if path == "algorithm.updates":
        assert [problem.path for problem in problems] == ["spec.algorithm.updates"]
        assert [refusal.path for refusal in found] == [path]
    elif changeable(path):
        assert problems == []
        assert found == []
        assert job_fingerprint(new) == job_fingerprint(old)
    else:
        [problem], [refusal] = problems, found
        assert (problem.path, refusal.path) == (f"spec.{path}", path)
        assert "on a job that exists" in problem.what
        assert "on a job that exists" in refusal.message
        assert job_fingerprint(new) != job_fingerprint(old)
        if (
            node.get("type") in ("string", "integer", "number", "boolean")
            and (was := _get(stored(BASE), path)) is not None
        ):
            assert f"(was {_shown(was)}, now {_shown(value)})" in refusal.message
            assert f"(was {shown(_get(_plain(old), path))}, now {shown(_get(_plain(new), path))})" in problem.what


def _plain(value: AsyncPPOJobSpec) -> Any:
    return value.model_dump(mode="json", by_alias=True)


def _shown(value: Any) -> str:
    """As CEL writes it: no point in a number that needs none."""
    return f"{value:g}" if isinstance(value, float) else shown(value)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def test_updates_may_be_raised() -> None:
    more = {"algorithm.updates": 11}
    assert changes_refused(spec(), spec(more)) == []
    assert transitions(more, {}) == []
    assert job_fingerprint(spec()) == job_fingerprint(spec(more))


def test_a_field_that_was_not_set_cannot_appear_nor_vanish() -> None:
    one, other = {"rollout.engine.options": {"a": 1}}, {}
    for old, new in ((one, other), (other, one)):
        assert [problem.path for problem in changes_refused(spec(old), spec(new))] == ["spec.rollout.engine.options"]
        assert len(transitions(new, old)) == 1


def test_what_is_turned_off_stays_off() -> None:
    off = {"algorithm.dualClip": 0}
    assert [problem.path for problem in changes_refused(spec(), spec(off))] == ["spec.algorithm.dualClip"]
    assert len(transitions(off, {})) == 1
    assert transitions(off, off) == []
    assert job_fingerprint(spec(off)) != job_fingerprint(spec())


def test_the_refusal_says_what_was_and_what_is() -> None:
    [problem] = changes_refused(spec(), spec({"seed": 7}))
    assert str(problem).startswith(
        "spec.seed: cannot change on a job that exists (was 0, now 7); put the old value back"
    )
    found = changes_refused(spec(), spec({"model.builtin": {"layers": 3, "heads": 8}}))
    assert {(problem.path, problem.what.partition(" (")[2]) for problem in found} == {
        ("spec.model.builtin.layers", "was 2, now 3)"),
        ("spec.model.builtin.heads", "was 4, now 8)"),
    }
    [problem] = changes_refused(spec(), spec({"environment.parameters": {"high": 9}}))
    assert "(changed: high)" in problem.what


def test_writing_a_default_out_is_no_change() -> None:
    written = {"seed": 0, "sampling": {"topP": 1, "temperature": 1.0}, "environment.parameters": {}}
    assert changes_refused(spec(), spec(written)) == []
    assert job_fingerprint(spec()) == job_fingerprint(spec(written))
    assert transitions(written, {}) == []


def test_the_order_of_free_content_does_not_matter() -> None:
    one, other = ({"environment.parameters": dict(pairs)} for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]))
    assert job_fingerprint(spec(one)) == job_fingerprint(spec(other))


def test_fingerprints_stay_the_same_from_release_to_release() -> None:
    """A run of an earlier release resumes only with the same fingerprint: change these only with a way to migrate."""
    assert job_fingerprint(spec()) == "39a55f679f1e20f189371366854485c3f348fa1350d176a3fbc22f6ae946db00"
    assert (
        job_fingerprint(spec(BASE | {"algorithm.dualClip": 0, "seed": 3}))
        == "4cecd291393b15fa38dc0390f92014c004b27eabdbebffb223d8cc2d43d5291f"
    )


def test_changeable_paths_exist_and_fixed_ones_do_not_overlap_them() -> None:
    for path in CHANGEABLE:
        at(spec_schema(), path)
    assert not [path for path in fixed_paths() if changeable(path)]
