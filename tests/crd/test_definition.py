"""The definition on a real API server: taken without a warning; jobs refused where and as `asyncppo validate` refuses them."""

from typing import Any

import pytest
from tests.crd.server import Answer, Cause, Server
from tests.unit.api.builders import another, changed, document, leaves, stored
from tests.unit.api.test_changes import changeable
from tests.unit.api.test_crd import EXAMPLES, NOT_RUNNING_YET, WRONG
from tests.unit.api.test_implemented import DEVICES
from tests.unit.api.test_rules import INVALID, VALID

from asyncppo.api.changes import ONLY_UPWARDS
from asyncppo.api.crd import VALIDATIONS, crd
from asyncppo.api.documents import read_document
from asyncppo.api.implemented import NOT_BUILT, ONLY, WITHOUT_DEVICES, not_built
from asyncppo.api.job import NAME_REMEDY, NAME_RULE
from asyncppo.api.manifest import parse_manifest
from asyncppo.api.rules import RULES
from asyncppo.api.schema import Schema, at, job_schema, spec_schema, without_nulls

GAE = {"algorithm.advantage": "GAE", "algorithm.critic": {"valueClip": 0.5}}
JOBS: dict[str, dict[str, Any]] = {
    "built-in": GAE | {"oldLogits.snapshot.retention": 7, "oldLogits.segmentBound": 0.5, "oldLogits.ewma.decay": 0.5},
    "pretrained": {
        "model": {"pretrained": "some/model"},
        "environment": {"type": "Custom", "entrypoint": "mine:World"},
        "rollout.engine": {"type": "VLLM", "options": {"max_num_seqs": 4}},
    },
}
"""Jobs that between them have every field that may be left out."""
LEAVES = list(leaves(spec_schema()))


def refusal(answer: Answer, path: str, message: str) -> bool:
    """Whether the server refuses, with just these words, at just this path."""
    return any(cause.field == path and cause.message.endswith(message) for cause in answer.causes)


def test_the_definition_is_taken_without_a_warning(installed: Answer, judges: bool) -> None:
    assert installed.warnings == ()
    kept = installed.body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    sent = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    if judges:
        assert kept == sent
    else:
        assert _without_rules(kept) == _without_rules(sent)


def _without_rules(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_rules(value) for key, value in node.items() if key != VALIDATIONS}
    return node


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_every_example_is_taken_strictly(server: Server, judges: bool, path: Any) -> None:
    raw = read_document(path.read_text(encoding="utf-8"), str(path))
    answer = server.try_new(raw)
    assert answer.warnings == ()
    if path.name in NOT_RUNNING_YET and judges:
        [cause] = answer.causes
        [problem] = not_built(raw["spec"])
        assert problem.path.startswith(cause.field)
        assert "not implemented yet" in cause.message
    else:
        assert answer.taken, answer


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize(("name", "changes"), INVALID)
def test_each_rule_refuses_in_its_own_words_at_its_path(server: Server, name: str, changes: dict[str, Any]) -> None:
    rule = next(rule for rule in RULES if rule.name == name)
    answer = server.try_new(document(changes))
    assert answer.status == 422
    assert refusal(answer, f"spec.{rule.path}", f": {rule.message}; {rule.remedy}"), answer.causes
    assert len(answer.causes) == 1


@pytest.mark.parametrize("changes", VALID)
def test_what_is_valid_is_taken(server: Server, changes: dict[str, Any]) -> None:
    answer = server.try_new(document(changes))
    assert answer.taken, answer
    assert answer.warnings == ()


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_an_empty_value_of_a_label_is_taken(server: Server, field: str) -> None:
    """By servers that judge: those of version 1.20 take an empty text for a null, of whatever kind."""
    answer = server.try_new(document({field: {"team": ""}}))
    assert answer.taken, answer
    assert answer.body["spec"][field] == {"team": ""}


@pytest.mark.parametrize("changes", WRONG)
def test_a_wrong_field_is_refused_at_its_path(server: Server, changes: dict[str, Any]) -> None:
    answer = server.try_new(document(changes))
    assert answer.status == 422
    [path] = changes
    fields = [cause.field for cause in answer.causes]
    assert any(f"spec.{path}".startswith(field) or field.startswith(f"spec.{path}") for field in fields), fields


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize(("path", "value"), [*NOT_BUILT, *((path, value / 2 + 0.25) for path, value in ONLY)])
def test_what_is_not_built_is_refused(server: Server, path: str, value: Any) -> None:
    [problem] = not_built(document({path: value})["spec"])
    answer = server.try_new(document({path: value}))
    assert refusal(answer, problem.path, f": {problem.what}; {problem.remedy}"), answer


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize("role", [role for role, _, _ in WITHOUT_DEVICES])
@pytest.mark.parametrize("kind", ["requests", "limits"])
@pytest.mark.parametrize("device", DEVICES)
def test_devices_where_no_program_uses_them(server: Server, role: str, kind: str, device: str) -> None:
    path = f"{role}.resources.{kind}"
    [cause] = server.try_new(document({path: {device: 1, "cpu": "500m"}})).causes
    assert cause.field == f"spec.{path}"
    assert "not implemented yet" in cause.message
    assert server.try_new(document({path: {"cpu": "500m", "memory": "1Gi"}})).taken
    assert server.try_new(document({f"rollout.resources.{kind}": {device: 1}})).taken


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize("name", ["1st", "7"])
def test_a_name_that_services_cannot_have(server: Server, name: str) -> None:
    answer = server.try_new(document() | {"metadata": {"name": name}})
    assert answer.causes == [Cause("metadata.name", f"Invalid value: allowed: {NAME_RULE}; {NAME_REMEDY}")]


WHOLE = sorted({read for rule in RULES for read in rule.reads if at(spec_schema(), read).get("type") == "integer"})


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize("path", WHOLE)
def test_a_decimal_point_in_an_integer_is_named_and_no_rule_blamed(server: Server, path: str) -> None:
    base = {"oldLogits.strategy": "Auto"}
    answer = server.try_new(
        document(base | {path: float(stored().get(path) or at(spec_schema(), path)["minimum"] + 8)})
    )
    assert refusal(answer, f"spec.{path}", "write whole numbers without a decimal point: 10, not 10.0"), answer.causes
    assert not [cause for cause in answer.causes for rule in RULES if rule.message in cause.message]


@pytest.mark.parametrize("changes", [*VALID, *JOBS.values()])
def test_defaults_that_are_filled_in_are_the_models(server: Server, changes: dict[str, Any]) -> None:
    raw = document(changes)
    answer = server.try_new(raw)
    assert answer.taken, answer
    told = parse_manifest(raw, "m.yaml").spec.model_dump(mode="json", by_alias=True)
    assert answer.body["spec"] == without_nulls(job_schema()["properties"]["spec"], told)
    assert answer.body["spec"] == stored(changes)


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize("name", JOBS)
def test_each_field_of_a_job_that_exists_changes_or_is_refused(server: Server, name: str) -> None:
    made = server.make(document(JOBS[name]) | {"metadata": {"name": name}})
    assert made.taken, made
    spec = made.body["spec"]
    tried = 0
    for path, node in LEAVES:
        value = another(node, _get(spec, path))
        if path == ONLY_UPWARDS:
            value = _get(spec, path) - 1
        parent = path.rpartition(".")[0]
        if parent and _get(spec, parent) is None:
            continue
        tried += 1
        answer = server.patch(name, {"spec": changed({}, {path: value})}, dry_run=True)
        refused = [
            cause
            for cause in answer.causes
            if "on a job that exists" in cause.message or "an existing job" in cause.message
        ]
        if changeable(path) and path != ONLY_UPWARDS:
            assert refused == [], path
        else:
            assert [cause.field for cause in refused] == [f"spec.{path}"], (path, answer)
            _names_both(refused[0], node, _get(spec, path), value)
    assert tried > 70


def _names_both(cause: Cause, node: Schema, was: Any, now: Any) -> None:
    if was is not None and node.get("type") in ("string", "integer", "number", "boolean"):
        for value in (was, now):
            shown = (
                f"{value:g}"
                if isinstance(value, float)
                else str(value).lower()
                if isinstance(value, bool)
                else str(value)
            )
            assert shown in cause.message.partition("(was ")[2], cause


@pytest.mark.usefixtures("judging")
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("built-in", "model.builtin"),
        ("built-in", "algorithm.critic"),
        ("built-in", "algorithm.critic.valueClip"),
        ("built-in", "oldLogits.snapshot.retention"),
        ("pretrained", "model.pretrained"),
        ("pretrained", "environment.entrypoint"),
        ("pretrained", "rollout.engine.options"),
    ],
)
def test_a_field_that_may_be_left_out_cannot_go(server: Server, name: str, path: str) -> None:
    assert server.make(document(JOBS[name]) | {"metadata": {"name": name}}).taken
    answer = server.patch(name, {"spec": changed({}, {path: None})}, dry_run=True)
    assert Cause(f"spec.{path}", "Invalid value: " + _SET_OR_REMOVED) in [
        Cause(cause.field, cause.message.replace(' "object":', "")) for cause in answer.causes
    ], answer.causes


_SET_OR_REMOVED = (
    "cannot be set or removed on a job that exists; put the old value back, or make a job with another name"
)


@pytest.mark.usefixtures("judging")
def test_updates_may_be_raised_and_never_lowered(server: Server) -> None:
    assert server.make(document()).taken
    assert server.patch("test", {"spec": {"algorithm": {"updates": 11}}}).taken
    [cause] = server.patch("test", {"spec": {"algorithm": {"updates": 10}}}).causes
    assert (cause.field, "(was 11, now 10)" in cause.message) == ("spec.algorithm.updates", True)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
