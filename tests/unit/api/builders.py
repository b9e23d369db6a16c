"""Builders of manifests and walks over the schema, for the tests of the API."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.schema import Schema, spec_schema, with_defaults

ABSENT = object()
"""In a table of changes: take the field away."""

SPEC: dict[str, Any] = {
    "model": {"builtin": {}},
    "environment": {"type": "GuessNumber"},
    "algorithm": {"updates": 10},
    "oldLogits": {"strategy": "Interruption"},
}


def document(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A small valid manifest with the fields at these dotted paths below `spec` set, or taken away with ABSENT."""
    return {
        "apiVersion": "asyncppo.io/v1alpha1",
        "kind": "AsyncPPOJob",
        "metadata": {"name": "test"},
        "spec": changed(SPEC, changes or {}),
    }


def spec(changes: dict[str, Any] | None = None) -> AsyncPPOJobSpec:
    """The parsed spec of `document(changes)`, its cross-field rules not checked."""
    return AsyncPPOJobSpec.model_validate(document(changes)["spec"])


def stored(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The spec of `document(changes)` as an API server keeps it: defaults filled in."""
    filled: dict[str, Any] = with_defaults(spec_schema(), document(changes)["spec"])
    return filled


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with values set at dotted paths."""
    made = deepcopy(base)
    for path, value in changes.items():
        *parents, name = path.split(".")
        node = made
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is ABSENT:
            node.pop(name, None)
        else:
            node[name] = deepcopy(value)
    return made


def fields(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field below `node`, those of objects included, with its dotted path."""
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}".removeprefix(".")
        yield here, child
        yield from fields(child.get("items", child), here)


def leaves(node: Schema) -> Iterator[tuple[str, Schema]]:
    """The fields that have no fields below."""
    return ((path, child) for path, child in fields(node) if "properties" not in child)


def another(node: Schema, value: Any) -> Any:
    """A value that `node` allows and that is not `value`."""
    return next(candidate for candidate in _candidates(node) if candidate != value)


_TEXTS = ("one:One", "two:Two", "one", "two", "one/One", "two/Two", "1", "2")


def _candidates(node: Schema) -> Iterator[Any]:
    if "enum" in node:
        yield from node["enum"]
    elif "x-kubernetes-int-or-string" in node:
        yield from ("1Gi", "2Gi")
    elif "pattern" in node:
        yield from (text for text in _TEXTS if re.search(node["pattern"], text))
    elif node["type"] == "boolean":
        yield from (True, False)
    elif node["type"] == "integer":
        low = node.get("minimum", 0)
        yield from (low + 1, low + 2)
    elif node["type"] == "number":
        low, high = node.get("minimum", 0.0), node.get("maximum", node.get("minimum", 0.0) + 1.0)
        yield from (low + (high - low) / 4, low + (high - low) / 2)
    elif node["type"] == "string":
        yield from ("one", "two")
    elif "additionalProperties" in node:
        yield from ({"cpu": value} for value in _candidates(node["additionalProperties"]))
    else:
        yield from ({"one": 1}, {"two": [2.5, None]})
