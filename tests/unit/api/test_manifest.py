"""Manifests in and out: every problem is named with its path, what was found, what is allowed and what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.api.builders import ABSENT, changed, document

from asyncppo.api.manifest import dump_manifest, load_manifest, parse_manifest
from asyncppo.api.problems import ManifestError, Problem
from asyncppo.errors import UserError


def problems(raw: Any) -> list[Problem]:
    """The problems of a document that has some."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(raw, "m.yaml")
    return list(caught.value.problems)


def test_a_valid_manifest_gets_its_defaults() -> None:
    job = parse_manifest(document({"learner.resources.limits": {"cpu": 2, "memory": "4Gi"}}), "m.yaml")
    assert job.metadata.name == "test"
    assert job.spec.model.builtin is not None
    assert job.spec.staleness.max_versions == 2
    assert job.spec.learner.resources.limits == {"cpu": 2, "memory": "4Gi"}


GPU_LIMIT = 'spec.rollout.resources.limits["nvidia.com/gpu"]'


@pytest.mark.parametrize(
    ("changes", "path", "parts"),
    [
        ({"algorithm.grupSize": 8}, "spec.algorithm.grupSize", ["unknown field", "groupSize", 'did you mean "groupSize"?']),
        ({"zebra": 8}, "spec.zebra", ["unknown field", "allowed here: model, environment", "remove it"]),
        ({"algorithm.updates": ABSENT}, "spec.algorithm.updates", ["missing", "an integer from 1 to 2147483647", "add it"]),
        ({"algorithm.updates": "10"}, "spec.algorithm.updates", ['found "10"', "an integer", "without quotes"]),
        ({"algorithm.updates": 1.5}, "spec.algorithm.updates", ["found 1.5", "whole number"]),
        ({"algorithm.updates": 0}, "spec.algorithm.updates", ["found 0", "from 1 to", "within these bounds"]),
        ({"algorithm.updates": True}, "spec.algorithm.updates", ["found true", "an integer"]),
        ({"algorithm.updates": [1]}, "spec.algorithm.updates", ["found a list of 1"]),
        ({"algorithm.clipLow": 1}, "spec.algorithm.clipLow", ["found 1", "above 0 and below 1"]),
        ({"algorithm.dualClip": 1}, "spec.algorithm.dualClip", ["dualClip must be above 1, or 0"]),
        ({"suspend": "yes"}, "spec.suspend", ["true or false", "without quotes"]),
        ({"oldLogits.strategy": "interuption"}, "spec.oldLogits.strategy", ["one of Interruption, Snapshot", "did you mean Interruption?"]),
        ({"oldLogits.strategy": "Zebra"}, "spec.oldLogits.strategy", ['found "Zebra"', "choose one of these"]),
        ({"oldLogits.strategy": ABSENT}, "spec.oldLogits.strategy", ["missing", "one of Interruption"]),
        ({"algorithm": []}, "spec.algorithm", ["found an empty list", "an object with updates"]),
        ({"environment": {"type": "Custom", "entrypoint": "no colon"}}, "spec.environment.entrypoint", ['found "no colon"', "matching"]),
        ({"rollout.resources.limits": {"nvidia.com/gpu": "many"}}, GPU_LIMIT, ["a quantity", "10Gi"]),
        ({"learner.storage": -1}, "spec.learner.storage", ["found -1", "a quantity"]),
        ({"learner.storage": True}, "spec.learner.storage", ["found true", "a quantity"]),
        ({"oldLogits.ewma": {"decay": 1}}, "spec.oldLogits.ewma.decay", ["at least 0 and below 1"]),
        ({"oldLogits.ewma": {"decay": -0.1}}, "spec.oldLogits.ewma.decay", ["at least 0 and below 1"]),
        ({"learner.image": 7}, "spec.learner.image", ["found 7", "a string", "in quotes"]),
        ({"learner.image": ""}, "spec.learner.image", ['found ""', "1 to 512 characters"]),
        ({"model": None}, "spec.model", ["missing", "an object with builtin, pretrained"]),
        ({"learner.template": "x"}, "spec.learner.template", ["an object with any content"]),
        ({"optimizer.learningRate": 10**400}, "spec.optimizer.learningRate", ["more than 64 bits"]),
        ({"optimizer.learningRate": float("nan")}, "spec.optimizer.learningRate", ["nan, not a finite number"]),
        ({"environment.parameters": {1: 2}}, "spec.environment.parameters", ["a key that is not a string: 1"]),
        ({"environment.parameters": {"a": {1, 2}}}, "spec.environment.parameters.a", ["a set, which JSON does not have"]),
        ({"environment.parameters": {"a": "\ud800"}}, "spec.environment.parameters.a", ["no Unicode text"]),
    ],
)  # fmt: skip
def test_a_wrong_field(changes: dict[str, Any], path: str, parts: list[str]) -> None:
    [problem] = problems(document(changes))
    assert problem.path == path
    assert [part for part in parts if part not in str(problem)] == []


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (None, ["found nothing", "an object of kind AsyncPPOJob"]),
        ([], ["found an empty list"]),
        ("text", ['found "text"']),
        ({}, ["missing"]),
        ({"kind": "Job", "apiVersion": "batch/v1"}, ['kind: found "Job"; allowed: AsyncPPOJob', "apiVersion"]),
        ({"kind": "AsyncPPOJob", "apiVersion": "asyncppo.io/v1"}, ["apiVersion", "asyncppo.io/v1alpha1"]),
        ({"kind": "AsyncPPOJob", "apiVersion": "asyncppo.io/v1alpha1"}, ["metadata: missing", "spec: missing"]),
        (document() | {"spce": {}}, ["spce: unknown field", 'did you mean "spec"?']),
        (
            document() | {"metadata": {"name": "Upper"}},
            ["metadata.name", 'found "Upper"', "at most 52 lower-case letters"],
        ),
        (document() | {"metadata": {"name": "a" * 53}}, ["metadata.name"]),
        (document() | {"metadata": {"name": "1st"}}, ["metadata.name", 'found "1st"', "a letter first"]),
        (document() | {"metadata": {"name": "-a"}}, ["metadata.name", "a letter first"]),
        (document() | {"metadata": {"name": "a-"}}, ["metadata.name", "no dash at the end"]),
        (document() | {"metadata": {}}, ["metadata.name: missing"]),
        (document() | {"spec": 3}, ["spec: found 3"]),
    ],
)
def test_a_document_that_is_no_job(raw: Any, parts: list[str]) -> None:
    text = "\n".join(map(str, problems(raw)))
    assert [part for part in parts if part not in text] == []


def test_every_problem_is_named_at_once() -> None:
    changes = {
        "algorithm.updates": "many",
        "algorithm.groupSize": 1,
        "optimizer.learning_rate": 1,
        "oldLogits.strategy": "Interupt",
        "weightSync": {"transport": "NCCL"},
        "rollout.engine.tensorParallel": 2,
        "sampling.topP": 0.5,
    }
    found = {problem.path for problem in problems(document(changes))}
    assert found == {
        "spec.algorithm.updates",
        "spec.algorithm.groupSize",
        "spec.optimizer.learning_rate",
        "spec.oldLogits.strategy",
        "spec.weightSync.transport",
        "spec.rollout.engine.tensorParallel",
        "spec.sampling.topP",
    }


def test_the_message_names_the_file_and_counts() -> None:
    with pytest.raises(UserError, match=r"(?s)^m\.yaml: 2 problems\n  spec\.seed: .*\n  spec\.suspend: ") as caught:
        parse_manifest(document({"seed": -1, "suspend": 3}), "m.yaml")
    assert str(caught.value).count("\n") == 2


def test_a_misspelt_field_brings_no_second_complaint() -> None:
    misspelt = document({"algorithm.criticc": {}, "algorithm.advantage": "GAE"})
    assert [p.path for p in problems(misspelt) if "not implemented" not in p.what] == ["spec.algorithm.criticc"]


def test_long_values_are_shortened() -> None:
    [problem] = problems(document({"oldLogits.strategy": "x" * 5000}))
    assert len(str(problem)) < 400


def test_null_means_not_set() -> None:
    plain = parse_manifest(document(), "m.yaml")
    with_nulls = document(
        {
            "sampling": None,
            "optimizer": {"schedule": None},
            "activeDeadlineSeconds": None,
            "algorithm.dualClip": None,
            "model.pretrained": None,
        }
    )
    assert parse_manifest(with_nulls | {"status": None}, "m.yaml") == plain


def test_null_is_kept_in_free_content_and_zero_turns_off() -> None:
    job = parse_manifest(document({"algorithm.dualClip": 0, "environment.parameters": {"a": None}}), "m.yaml")
    assert job.spec.algorithm.dual_clip is None
    assert job.spec.environment.parameters == {"a": None}


def test_what_kubernetes_adds_is_taken() -> None:
    raw = document() | {"status": {"phase": "Running"}}
    raw["metadata"] |= {
        "uid": "u",
        "namespace": "n",
        "labels": {"a": "b"},
        "generation": 3,
        "managedFields": [{"x": {}}],
    }
    job = parse_manifest(raw, "m.yaml")
    assert (job.metadata.uid, job.metadata.namespace) == ("u", "n")
    assert job.status == {"phase": "Running"}


def test_dump_and_load_are_inverse(tmp_path: Path) -> None:
    changes = {
        "algorithm.dualClip": 0,
        "environment.parameters": {"text": 'é "q" \\ \x7f 🙂', "nested": [1, 2.5e-7, None, True]},
        "learner.storage": 1 << 40,
        "optimizer.learningRate": 1e-5,
        "ttlSecondsAfterFinished": 3,
    }
    job = parse_manifest(document(changes), "m.yaml")
    file = tmp_path / "job.json"
    file.write_text(dump_manifest(job), encoding="utf-8")
    again = load_manifest(file)
    assert again == job
    assert dump_manifest(again) == file.read_text(encoding="utf-8")
    assert json.loads(dump_manifest(job))["spec"]["algorithm"]["dualClip"] == 0


def test_the_dump_does_not_depend_on_how_the_manifest_was_written() -> None:
    one = parse_manifest(document({"seed": 0, "sampling.topP": 1}), "a")
    other = parse_manifest(changed(document(), {"spec.sampling": None}), "b")
    assert dump_manifest(one) == dump_manifest(other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.yaml", None, "cannot be read (No such file"),
        ("binary.yaml", b"\xff\xfe\x00", "not UTF-8 at byte 0"),
        ("large.yaml", b"#" * (1 << 20) + b"\n", "larger than"),
        ("empty.yaml", b"# nothing\n", "is empty"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_manifest(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_manifest(tmp_path)
