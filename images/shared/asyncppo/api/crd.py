"""The CustomResourceDefinition, made from the models: `python -m asyncppo.api.crd --write|--check`.

Owns what stands around the schema: names, columns, subresources, where the CEL rules hang. Does not own the schema (`schema.py`), the
rules (`rules.py`, `changes.py`) nor the fields (the models).
"""

from typing import Any

import yaml

from asyncppo.api.changes import transition_rules
from asyncppo.api.generated import generated_file_main
from asyncppo.api.job import GROUP, KIND, PLURAL, SHORT_NAME, VERSION, ObjectMeta
from asyncppo.api.rules import RULES, Rule
from asyncppo.api.schema import Schema, at, spec_schema, structural
from asyncppo.api.status import JobStatus

PATH = "crds/asyncppojobs.asyncppo.io.yaml"
LARGEST = 60_000
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
    spec[VALIDATIONS] = []
    for rule in RULES:
        at(spec, rule.node).setdefault(VALIDATIONS, []).append(_validation(rule))
    spec[VALIDATIONS] += transition_rules()
    return spec


def _validation(rule: Rule) -> Schema:
    path = rule.path if not rule.node else rule.path.removeprefix(rule.node).removeprefix(".")
    made = {"rule": rule.cel, "message": f"{rule.message}; {rule.remedy}"}
    return made | ({"fieldPath": f".{path}"} if path else {})


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
