"""Evaluates the CRD's CEL rules as an API server does: each rule with `self` (and `oldSelf`) the object it is attached to.

Values get CEL types from the schema, not from how JSON happens to write them: 2 in a number field is a double.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy
from celpy import celtypes
from celpy.adapter import json_to_cel

from asyncppo.api.crd import VALIDATIONS, crd
from asyncppo.api.schema import Schema


def spec_of_crd() -> Schema:
    """The schema of `spec` in the CRD, with its rules."""
    node: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return node


def refusals(spec: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    """The messages of the rules that refuse `spec` (defaults filled in); with `old`, of the transition rules that refuse the change."""
    return list(_refusals(spec_of_crd_once(), spec, old))


@cache
def spec_of_crd_once() -> Schema:
    """`spec_of_crd`, made once."""
    return spec_of_crd()


def _refusals(node: Schema, value: Any, old: Any) -> Iterator[str]:
    rules = [v for v in node.get(VALIDATIONS, ()) if ("oldSelf" in v["rule"]) == (old is not None)]
    names = {"self": _typed(node, value)} if rules else {}
    if rules and old is not None:
        names["oldSelf"] = _typed(node, old)
    for validation in rules:
        outcome = _program(validation["rule"]).evaluate(names)
        assert isinstance(outcome, celtypes.BoolType), f"{validation['rule']} gave {outcome!r}"
        if not outcome:
            yield validation["message"]
    for name, child in node.get("properties", {}).items():
        if isinstance(value, dict) and name in value and (old is None or name in old):
            yield from _refusals(child, value[name], old and old[name])


@cache
def _program(rule: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _typed(node: Schema, value: Any) -> Any:
    if "properties" in node:
        return celtypes.MapType({celtypes.StringType(k): _typed(node["properties"][k], v) for k, v in value.items()})
    if node.get("type") == "number":
        return celtypes.DoubleType(value)
    return json_to_cel(value)
