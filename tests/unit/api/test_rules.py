"""The rules across fields: each refuses what it is for, in Python and in CEL alike."""

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.api.builders import ABSENT, document, fields, spec, stored
from tests.unit.api.cel import Refusal, refusals, refused, spec_of_crd

from asyncppo.api.correction import Strategy
from asyncppo.api.crd import VALIDATIONS
from asyncppo.api.manifest import parse_manifest
from asyncppo.api.problems import ManifestError
from asyncppo.api.rules import RULES, Rule, broken_rules
from asyncppo.api.schema import Schema, at, spec_schema
from asyncppo.api.training import DiscrepancyControl, DiscrepancyWeight

INVALID: list[tuple[str, dict[str, Any]]] = [
    ("OneModel", {"model.builtin": ABSENT}),
    ("OneModel", {"model.pretrained": "some/model"}),
    ("EvenHeads", {"model.builtin": {"hiddenSize": 63}}),
    ("EvenHeads", {"model.builtin": {"hiddenSize": 12, "heads": 4}}),
    ("CustomEntrypoint", {"environment.entrypoint": "mine:World"}),
    ("CustomEntrypoint", {"environment.type": "Custom"}),
    ("RoomForATurn", {"sampling.maxTokens": 256}),
    ("RoomForATurn", {"sampling.contextLength": 15}),
    ("GroupsToCompare", {"algorithm.groupSize": 1}),
    ("GroupsToCompare", {"algorithm.groupSize": 1, "algorithm.advantage": "RLOO"}),
    ("GroupsToCompare", {"algorithm.groupSize": 1, "algorithm.advantage": "DrGRPO"}),
    ("CriticOfGAE", {"algorithm.advantage": "GAE"}),
    ("CriticOfGAE", {"algorithm.critic": {}}),
    ("DualClipAboveOne", {"algorithm.dualClip": 1}),
    ("DualClipAboveOne", {"algorithm.dualClip": 0.5}),
    ("CapAboveMask", {"algorithm.discrepancy.bound": 2.5}),
    ("CapAboveMask", {"algorithm.discrepancy.cap": 1}),
    ("WeightOfControl", {"algorithm.discrepancy": {"control": "TIS", "weight": "MaskOnly"}}),
    ("WeightOfControl", {"algorithm.discrepancy": {"control": "IcePop", "weight": "MaskOnly"}}),
    ("RatioOfRollout", {"oldLogits.strategy": "Rollout", "algorithm.discrepancy.control": "SequenceMask"}),
    ("RatioOfRollout", {"oldLogits.strategy": "Rollout", "algorithm.discrepancy.control": "TIS"}),
    ("WarmupWithinUpdates", {"optimizer.warmupUpdates": 11}),
    ("OverlappedInterruption", {"oldLogits": {"strategy": "Snapshot", "scoring": "Overlapped"}}),
    ("OverlappedInterruption", {"oldLogits": {"strategy": "Auto", "scoring": "Overlapped"}}),
    ("FallbackFromExact", {"oldLogits": {"strategy": "Recompute", "onUnavailable": "Fallback"}}),
    ("FallbackFromExact", {"oldLogits": {"strategy": "EWMA", "onUnavailable": "Fallback"}}),
    ("RetentionCoversStaleness", {"oldLogits": {"strategy": "Snapshot", "snapshot": {"retention": 2}}}),
    ("RetentionCoversStaleness", {"oldLogits.snapshot.retention": 8, "staleness.maxVersions": 8}),
    ("DedicatedWorkers", {"oldLogits.strategy": "Dedicated"}),
    ("DedicatedWorkers", {"oldLogit.replicas": 1}),
    ("TensorParallelVLLM", {"rollout.engine.tensorParallel": 2}),
    ("OptionsOfVLLM", {"rollout.engine.options": {}}),
    ("OptionsOfVLLM", {"rollout.engine.options": {"max_num_seqs": 4}}),
    ("PrecisionOfVLLM", {"rollout.engine": {"type": "VLLM", "precision": "Float64"}}),
]
BAD_NAMES = (
    "", "/", "a/", "/a", "a/b/c", "a b", "-a", "a-", "A.io/team", "a..b/team", "a" * 64, "é", "team\n",
    "a" * 254 + "/team", "asyncppo.io/job", "asyncppo.io/mine", "app.kubernetes.io/name",
)  # fmt: skip
for bad in BAD_NAMES:
    INVALID += [("LabelNames", {"labels": {bad: "x"}}), ("AnnotationNames", {"annotations": {bad: "x"}})]

VALID: list[dict[str, Any]] = [
    {},
    *(
        {field: {name: "x"}}
        for field in ("labels", "annotations")
        for name in (
            "team",
            "T",
            "a-b_c.d",
            "example.org/team",
            "kueue.x-k8s.io/queue-name",
            "argocd.argoproj.io/instance",
            "a" * 63,
            "app.kubernetes.io/part-of",
        )
    ),
    {"model": {"pretrained": "some/model"}},
    {"model.builtin": {"hiddenSize": 24, "heads": 4}},
    {"environment": {"type": "Custom", "entrypoint": "mine:World"}},
    {"sampling": {"maxTokens": 255}},
    {"algorithm.groupSize": 1, "algorithm.advantage": "REINFORCEPlusPlus"},
    {"algorithm.groupSize": 1, "algorithm.advantage": "GAE", "algorithm.critic": {}},
    {"algorithm.discrepancy.bound": 2},
    {"algorithm.discrepancy": {"bound": 9, "weight": "MaskOnly"}},
    {"algorithm.discrepancy": {"control": "GeometricMask", "bound": 9}},
    {"algorithm.discrepancy.control": "TIS"},
    {"oldLogits.strategy": "Rollout"},
    {"oldLogits.strategy": "Rollout", "algorithm.discrepancy.control": "None"},
    {"optimizer.warmupUpdates": 10},
    {"oldLogits.scoring": "Overlapped"},
    {"oldLogits.onUnavailable": "Fallback"},
    {"oldLogits.snapshot.retention": 3},
    {"oldLogits.strategy": "Dedicated", "oldLogit.replicas": 1},
    {"oldLogits.strategy": "Auto"},
    {"oldLogits.strategy": "Auto", "oldLogit.replicas": 2},
    {"oldLogits": {"strategy": "Auto", "onUnavailable": "Fallback"}},
    {"weightSync.minReady": 2},
    {"weightSync.minReady": 3, "rollout.replicas": 1},
    {"rollout.replicas": 0},
    {"rollout.engine": {"type": "VLLM", "tensorParallel": 2, "options": {"max_num_seqs": 4}}},
    {"rollout.engine.precision": "Float64"},
    {"algorithm.dualClip": 0},
    {"algorithm.dualClip": 1.5},
]


def python_refusals(changes: dict[str, Any]) -> set[str]:
    """Names of the rules whose predicate refuses."""
    parsed = spec(changes)
    return {rule.name for rule in RULES if not rule.holds(parsed)}


def cel_refusals(changes: dict[str, Any]) -> set[str]:
    """Names of the rules whose CEL twin refuses, each with its words and at its path."""
    found = refused(stored(changes))
    return {rule.name for rule in RULES if Refusal(rule.path, f"{rule.message}; {rule.remedy}") in found}


@pytest.mark.parametrize(("name", "changes"), INVALID)
def test_both_twins_refuse(name: str, changes: dict[str, Any]) -> None:
    assert python_refusals(changes) == {name}
    assert cel_refusals(changes) == {name}


@pytest.mark.parametrize("changes", [*VALID, {"labels": {"team": ""}, "annotations": {"team": ""}}])
def test_both_twins_accept(changes: dict[str, Any]) -> None:
    assert python_refusals(changes) == set()
    assert refusals(stored(changes)) == []


def test_every_rule_has_an_invalid_manifest() -> None:
    assert {name for name, _ in INVALID} == {rule.name for rule in RULES}


@pytest.mark.parametrize(("name", "changes"), INVALID)
def test_a_refusal_names_path_values_and_remedy(name: str, changes: dict[str, Any]) -> None:
    rule = next(rule for rule in RULES if rule.name == name)
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document(changes), "m.yaml")
    problem = next(p for p in caught.value.problems if p.what.startswith(rule.message))
    assert problem.path == f"spec.{rule.path}"
    assert problem.remedy == rule.remedy
    assert "(found: " in problem.what


def test_rules_that_read_a_wrong_value_are_not_asked() -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(document({"algorithm.groupSize": "one", "rollout.engine.tensorParallel": 9}), "m.yaml")
    assert [p.path for p in caught.value.problems] == ["spec.algorithm.groupSize", "spec.rollout.engine.tensorParallel"]


def test_found_values_are_shown_as_written() -> None:
    [problem] = broken_rules(spec({"rollout.engine.tensorParallel": 4}))
    assert '(found: type "Torch", tensorParallel 4)' in problem.what


_READ = sorted({path for rule in RULES for path in rule.reads})


def _value(node: Schema) -> st.SearchStrategy[Any]:
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node["type"] == "integer":
        low = node["minimum"]
        return st.integers(low, min(node["maximum"], low + 12))
    if node["type"] == "number":
        return st.sampled_from([number for number in (0, 0.5, 1, 1.0, 1.25, 2, 2.5) if number >= node["minimum"]])
    if node["type"] == "string":
        return st.sampled_from(["a:B", "c:D"])
    return st.just({})


@given(st.fixed_dictionaries({}, optional={path: _value(at(spec_schema(), path)) for path in _READ}))
@settings(max_examples=200)
def test_twins_agree_on_any_combination(changes: dict[str, Any]) -> None:
    if "model.builtin.heads" not in changes and "model.builtin.hiddenSize" not in changes:
        changes = {"model.builtin": ABSENT} | changes
    assert cel_refusals(changes) == python_refusals(changes)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_paths_of_a_rule_exist(rule: Rule) -> None:
    for path in (rule.path, *rule.reads):
        at(spec_schema(), path)
    assert rule.path in rule.reads or any(read.startswith(f"{rule.path}.") for read in rule.reads)
    assert rule.path == rule.node or rule.path.startswith(f"{rule.node}.".removeprefix("."))


def test_cel_touches_only_fields_that_are_always_there_or_asked_for() -> None:
    schema = spec_of_crd()
    nodes = [("", schema), *fields(schema)]
    touched = 0
    for where, node in nodes:
        for validation in node.get(VALIDATIONS, ()):
            rule = validation["rule"]
            for path in set(re.findall(r"\b(?:self|oldSelf)\.([A-Za-z0-9.]+)(?![A-Za-z0-9.(])", rule)):
                touched += 1
                assert _always_there(node, path) or f"has(self.{path})" in rule, f"{where}: {rule}"
            words = validation.get("message") or validation["messageExpression"]
            assert len(words) <= 2048
            assert "\n" not in words + rule
            if "fieldPath" in validation:
                at(node, validation["fieldPath"].removeprefix("."))
    assert touched > 40


def _always_there(node: Schema, path: str) -> bool:
    for name in path.split("."):
        if name not in node.get("required", ()) and "default" not in node["properties"][name]:
            return False
        node = node["properties"][name]
    return True


def test_strings_that_rules_touch_are_bounded() -> None:
    for rule in RULES:
        for path in rule.reads:
            node = at(spec_schema(), path)
            assert node["type"] != "string" or "enum" in node or "maxLength" in node, path


def test_controls_that_count_the_ratio_twice_or_not_at_all_are_refused_and_no_others() -> None:
    for strategy, control, weight in product(Strategy, DiscrepancyControl, DiscrepancyWeight):
        workers = {"oldLogit.replicas": 1} if strategy is Strategy.DEDICATED else {}
        found = python_refusals(
            {
                "oldLogits.strategy": strategy.value,
                "algorithm.discrepancy": {"control": control.value, "weight": weight.value},
                **workers,
            }
        )
        twice = strategy is Strategy.ROLLOUT and control.value not in ("TokenMask", "None")
        not_at_all = weight is DiscrepancyWeight.MASK_ONLY and control.value in ("TIS", "IcePop")
        expected = {name for name, refused in (("RatioOfRollout", twice), ("WeightOfControl", not_at_all)) if refused}
        assert found == expected, (strategy, control, weight)
