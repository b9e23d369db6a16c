"""The CRD: in step with the models, structural, small, described; the examples fit it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.unit.api.builders import ABSENT, SPEC, document, fields, leaves, stored
from tests.unit.api.cel import Refusal, defaults_refused, job_refused, refusals

from asyncppo.api.changes import fixed_paths
from asyncppo.api.crd import COLUMNS, LARGEST, PATH, VALIDATIONS, crd, crd_text
from asyncppo.api.documents import read_document
from asyncppo.api.generated import drift, repository_root
from asyncppo.api.job import NAME_LENGTH, NAME_REMEDY, NAME_RULE, AsyncPPOJobSpec
from asyncppo.api.manifest import load_manifest, parse_manifest
from asyncppo.api.problems import ManifestError
from asyncppo.api.schema import Schema, at, with_defaults

SCHEMA: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
NODES = list(fields(SCHEMA))
EXAMPLES = sorted((repository_root() / "examples").glob("*.yaml"))
STRUCTURAL_KEYS = {
    "type", "description", "default", "enum", "format", "items", "pattern", "properties", "required",
    "additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "maxItems",
    "maxProperties", "anyOf", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", VALIDATIONS,
}  # fmt: skip
NOT_RUNNING_YET = ("scale.yaml",)
"""Examples that are there to be estimated: each says so in a comment."""


def test_the_file_is_what_the_models_make() -> None:
    assert drift(PATH, crd_text) is None


def test_the_text_is_the_object_and_small() -> None:
    assert yaml.safe_load(crd_text()) == crd()
    assert len(crd_text().encode()) < LARGEST
    assert "{{" not in crd_text(), "a chart would take it for a template"


@pytest.mark.parametrize(("path", "node"), NODES, ids=[path for path, _ in NODES])
def test_each_field_is_structural(path: str, node: Schema) -> None:
    assert set(node) <= STRUCTURAL_KEYS
    if "x-kubernetes-int-or-string" in node:
        assert "type" not in node
        assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    else:
        assert node["type"] in ("object", "array", "string", "integer", "number", "boolean")
        assert "anyOf" not in node
    assert not ("properties" in node and "additionalProperties" in node)
    for side in ("exclusiveMinimum", "exclusiveMaximum"):
        assert node.get(side, True) is True
    if node.get("type") == "array":
        assert "items" in node
    if node.get("type") == "object" and "properties" not in node:
        assert node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node or path == "metadata"
    if path.split(".")[0] in ("spec", "status"):
        assert len(node.get("description", "")) >= 5, "kubectl explain has nothing to say"
        assert "\n" not in node["description"]


def test_objects_that_may_be_left_out_have_a_default() -> None:
    optional_without = {"spec.model.builtin", "spec.algorithm.critic"}
    for path, node in NODES:
        parent = at(SCHEMA, path.rpartition(".")[0]) if "[" not in path else {}
        if (
            not path.startswith("spec.")
            or "properties" not in node
            or path.rpartition(".")[2] in parent.get("required", ())
        ):
            continue
        whole = with_defaults(node, {})
        assert (node.get("default") in ({}, whole)) != (path in optional_without), path
        if any("oldSelf" not in rule["rule"] for rule in node.get(VALIDATIONS, ())):
            assert node.get("default", whole) == whole, f"{path}: a server asks its rules about the default as written"


def test_no_rule_refuses_a_default_as_it_is_written() -> None:
    assert defaults_refused(SCHEMA) == []


def test_a_default_left_to_the_fields_below_is_refused_where_a_rule_reads_them() -> None:
    """What a server says of `default: {}` (422, "no such key"): the definition could not be installed."""
    bare = deepcopy(SCHEMA["properties"]["spec"])
    for path, node in fields(bare):
        if "properties" in node and "default" in node:
            at(bare, path)["default"] = {}
    assert set(defaults_refused(bare)) >= {"sampling", "algorithm.discrepancy", "rollout.engine"}


def test_the_definition_that_a_real_server_refused_is_refused_here_for_the_same_defaults() -> None:
    earlier = yaml.safe_load(
        (repository_root() / "tests" / "crd" / "earlier-definition.yaml").read_text(encoding="utf-8")
    )
    spec = earlier["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(defaults_refused(spec)) == {"sampling", "algorithm.discrepancy", "rollout.engine"}


def test_defaults_filled_in_are_the_models_defaults() -> None:
    parsed = AsyncPPOJobSpec.model_validate(SPEC).model_dump(mode="json", by_alias=True)
    assert AsyncPPOJobSpec.model_validate(stored()) == AsyncPPOJobSpec.model_validate(SPEC)
    for path, node in leaves(SCHEMA["properties"]["spec"]):
        if "default" in node and not path.startswith("algorithm.critic"):
            assert _get(stored(), path) == _get(parsed, path), path


def test_every_default_is_valid() -> None:
    jsonschema.Draft4Validator(_draft4(SCHEMA["properties"]["spec"])).validate(stored())


def test_columns_and_scale_point_at_fields() -> None:
    for name, kind, path, _, _ in COLUMNS:
        if path.startswith(".metadata"):
            continue
        node = at(SCHEMA, path.removeprefix("."))
        assert node["type"] == kind, name
    scale = crd()["spec"]["versions"][0]["subresources"]["scale"]
    assert [at(SCHEMA, path.removeprefix("."))["type"] for path in scale.values()] == ["integer", "integer", "string"]
    assert "default" in at(SCHEMA, scale["specReplicasPath"].removeprefix("."))


def test_columns_in_the_order_people_expect() -> None:
    plain = [name for name, _, _, priority, _ in COLUMNS if priority == 0]
    assert plain == ["Phase", "Version", "Rollouts", "Staleness", "Exact", "Age"]
    assert {name for name, _, _, priority, _ in COLUMNS if priority == 1} >= {"Reward", "Strategy", "Message"}


def test_a_transition_rule_for_everything_that_is_fixed() -> None:
    spec = SCHEMA["properties"]["spec"]
    fixed = [path for path, _ in leaves(spec) if any(f"{path}.".startswith(f"{largest}.") for largest in fixed_paths())]
    assert len(fixed) > 40
    for path in fixed:
        assert "self == oldSelf" in [validation["rule"] for validation in at(spec, path)[VALIDATIONS]], path


def test_conditions_are_a_map_by_type() -> None:
    conditions = at(SCHEMA, "status.conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in conditions["items"]["required"]


def test_the_name_leaves_room_for_suffixes() -> None:
    name = SCHEMA["properties"]["metadata"]["properties"]["name"]
    assert name["maxLength"] == NAME_LENGTH
    assert name["type"] == "string"


@pytest.mark.parametrize("name", ["1st", "7", "-a", "a-", "Upper", "a.b"])
def test_a_name_that_services_cannot_have_is_refused(name: str) -> None:
    job = document() | {"metadata": {"name": name}, "spec": stored()}
    assert job_refused(job) == [Refusal("metadata.name", f"allowed: {NAME_RULE}; {NAME_REMEDY}")]
    with pytest.raises(ManifestError, match="a letter first"):
        parse_manifest(document() | {"metadata": {"name": name}}, "m.yaml")


def test_a_job_that_was_called_so_earlier_can_still_be_read() -> None:
    old = document() | {"metadata": {"name": "1st"}}
    assert parse_manifest(old, "job.json", lenient=True).metadata.name == "1st"
    jsonschema.Draft4Validator(_draft4(SCHEMA)).validate(old)


@pytest.mark.parametrize("name", ["a", "a1", "a-1", "x" * NAME_LENGTH])
def test_a_name_that_services_can_have_is_taken(name: str) -> None:
    job = document() | {"metadata": {"name": name}}
    assert job_refused(job | {"spec": stored()}) == []
    assert parse_manifest(job, "m.yaml").metadata.name == name


def test_there_are_examples() -> None:
    assert "guess-number.yaml" in [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_an_example_fits_the_schema_and_the_rules(path: Path) -> None:
    if path.name in NOT_RUNNING_YET:
        assert "It does not run yet" in path.read_text(encoding="utf-8")
        with pytest.raises(ManifestError, match="not implemented yet"):
            load_manifest(path)
    job = load_manifest(path, lenient=path.name in NOT_RUNNING_YET)
    raw = read_document(path.read_text(encoding="utf-8"), str(path))
    jsonschema.Draft4Validator(_draft4(SCHEMA, closed=True)).validate(raw)
    assert job.metadata.name == path.stem
    found = refusals(with_defaults(SCHEMA["properties"]["spec"], raw["spec"]))
    assert [message for message in found if "not implemented yet" not in message] == []
    assert bool(found) == (path.name in NOT_RUNNING_YET)


WRONG: list[dict[str, Any]] = [
    {"algorithm.updates": 0},
    {"algorithm.updates": "10"},
    {"algorithm.updates": ABSENT},
    {"algorithm.clipLow": 1.0},
    {"algorithm.clipLow": 0},
    {"oldLogits.strategy": "interruption"},
    {"oldLogits.ewma.decay": 1},
    {"environment": {"type": "Custom", "entrypoint": "nothing"}},
    {"learner.storage": "lots"},
    {"learner.storage": -1},
    {"rollout.replicas": 1025},
    {"suspend": "true"},
    {"sampling": []},
    {"learner.resources.limits": {"cpu": True}},
    {"algorithm.dualClip": -1},
    {"rollout.engine.options": "x"},
    {"seed": 1.5},
    {"learner.threads": 100_000_000},
    {"rollout.engine.threads": 1025},
    {"oldLogit.threads": 1025},
    {"rollout.engine.tensorParallel": 1025},
    {"weightSync.minReady": 1025},
    {"sampling.contextLength": (1 << 24) + 1},
    {"sampling.maxTokens": (1 << 24) + 1},
    {"environment.maxTurns": (1 << 20) + 1},
    {"checkpoint.keep": 65537},
]
"""Values that a field does not take, by the dotted path below `spec`."""


@pytest.mark.parametrize("changes", WRONG)
def test_schema_and_models_refuse_the_same_values(changes: dict[str, Any]) -> None:
    raw = document(changes)
    with pytest.raises(Exception, match="problem"):
        parse_manifest(raw, "m.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(_draft4(SCHEMA)).validate(raw)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value[name]
    return value


def _draft4(node: Schema, closed: bool = False) -> Schema:
    """The CRD's dialect as JSON schema draft 4, which has the same boolean exclusiveMinimum. closed: unknown fields are refused."""
    made = {key: value for key, value in node.items() if not key.startswith("x-")}
    if "properties" in node:
        made["properties"] = {name: _draft4(child, closed) for name, child in node["properties"].items()}
        if closed and "description" in node:
            made["additionalProperties"] = False
    return made
