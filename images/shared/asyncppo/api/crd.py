"""The CustomResourceDefinition, made from the models: `python -m asyncppo.api.crd --write|--check`.

Owns what stands around the schema: names, columns, subresources, where the CEL rules hang. Does not own the schema (`schema.py`), the
rules (`rules.py`, `changes.py`) nor the fields (the models).
"""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from asyncppo.api.changes import transition_rules
from asyncppo.api.generated import generated_file_main
from asyncppo.api.implemented import not_built_rules
from asyncppo.api.job import GROUP, KIND, NAME_PATTERN, NAME_REMEDY, NAME_RULE, PLURAL, SHORT_NAME, VERSION, ObjectMeta
from asyncppo.api.rules import RULES, Rule
from asyncppo.api.schema import Schema, at, spec_schema, structural, with_defaults
from asyncppo.api.status import JobStatus

PATH = "crds/asyncppojobs.asyncppo.io.yaml"
LARGEST = 120_000
"""Bytes: client-side `kubectl apply` writes the whole file into an annotation too, and those end at 256 KiB."""
VALIDATIONS = "x-kubernetes-validations"

COLUMNS: tuple[tuple[str, str, str, int, str], ...] = (
    ("Phase", "string", ".status.phase", 0, "Where the job is."),
    ("Version", "integer", ".status.version", 0, "The newest published policy version."),
    ("Rollouts", "string", ".status.rollouts.summary", 0, "Ready and desired rollout workers."),
    ("Staleness", "string", ".status.staleness.summary", 0, "Staleness of trained tokens, in versions."),
    ("Exact", "string", ".status.oldLogits.summary", 0, "Whether old log-probs are those of the version that sampled."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since the job was created."),
    ("Progress", "string", ".status.progress.summary", 1, "Updates done and to do."),
    ("Reward", "number", ".status.reward.newest", 1, "Mean reward of the newest update."),
    ("Strategy", "string", ".status.strategy", 1, "Where old log-probs come from."),
    ("Message", "string", ".status.message", 1, "What the job does, or what keeps it from going on."),
)
"""Name, type, JSON path, priority (1: only with -o wide), description."""


def crd() -> dict[str, Any]:
    """The whole object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["all", "asyncppo"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.rollout.replicas",
                            "statusReplicasPath": ".status.rollouts.replicas",
                            "labelSelectorPath": ".status.rollouts.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": _object_schema()},
                }
            ],
        },
    }


def crd_text() -> str:
    """`crds/asyncppojobs.asyncppo.io.yaml`."""
    note = "# Made by `python -m asyncppo.api.crd --write` from the models in asyncppo.api; edit those.\n"
    return note + yaml.dump(crd(), Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _object_schema() -> Schema:
    return {
        "type": "object",
        "description": "AsyncPPOJob is one asynchronous PPO training run.",
        "required": ["metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
            "kind": {"type": "string", "description": KIND},
            "metadata": _metadata(),
            "spec": _with_rules(spec_schema()),
            "status": {**structural(JobStatus), "description": "Written by the operator."},
        },
        VALIDATIONS: [
            {
                # Asked of new jobs alone: names do not change, and one made under an older definition must still be editable.
                "rule": f"oldSelf.hasValue() || self.metadata.name.matches('{NAME_PATTERN}')",
                "optionalOldSelf": True,
                "message": f"allowed: {NAME_RULE}; {NAME_REMEDY}",
                "fieldPath": ".metadata.name",
            }
        ],
    }


def _metadata() -> Schema:
    # Of metadata a schema may restrict the name alone.
    name = structural(ObjectMeta)["properties"]["name"]
    return {
        "type": "object",
        "properties": {"name": {key: value for key, value in name.items() if key != "description"}},
    }


def _with_rules(spec: Schema) -> Schema:
    spec = _copy(spec)
    of_rules = ((rule.node, _validation(rule)) for rule in RULES)
    for path, validation in (*_whole_numbers(spec), *of_rules, *not_built_rules(), *transition_rules()):
        node = at(spec, path)
        node.setdefault(VALIDATIONS, []).append(validation)
        if "default" in node and "properties" in node:
            # A server asks a field's rules about the field's default as it is written here, before defaults below it are filled in.
            node["default"] = with_defaults(node, {})
    return spec


def _validation(rule: Rule) -> Schema:
    path = rule.path if not rule.node else rule.path.removeprefix(rule.node).removeprefix(".")
    # An expression, though it is the same for all values: a server that cannot ask the rule quotes `message`, as if that were broken.
    made = {"rule": rule.cel, "messageExpression": json.dumps(f"{rule.message}; {rule.remedy}", ensure_ascii=False)}
    return made | ({"fieldPath": f".{path}"} if path else {})


def _whole_numbers(spec: Schema) -> Iterator[tuple[str, Schema]]:
    """Servers take 10.0 for an integer but cannot ask a rule that reads it: they say so of the rule's object. This says it of the field."""
    rule = {"rule": "self == int(self)", "message": "write whole numbers without a decimal point: 10, not 10.0"}
    for path in sorted({read for rule in RULES for read in rule.reads}):
        if at(spec, path).get("type") == "integer":
            yield path, rule


def _column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def _copy(node: Schema) -> Schema:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in node.items()}


class _Dumper(yaml.SafeDumper):
    """Without anchors, which the API server would expand and a reader cannot; one line for each field that has no fields below."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def _represent(dumper: _Dumper, data: dict[str, Any]) -> yaml.Node:
    # rules have lines of their own too: the chart takes them out for servers that know none
    leaf = "description" in data and not data.keys() & {"jsonPath", "properties", "items", VALIDATIONS}
    return dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=leaf or not data)


_Dumper.add_representer(dict, _represent)


if __name__ == "__main__":
    generated_file_main(PATH, crd_text)
