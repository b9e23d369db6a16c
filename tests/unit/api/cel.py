"""Evaluates the CRD's CEL rules as an API server does: each rule with `self` (and `oldSelf`) the value it is attached to.

Values get CEL types from the schema, not from how JSON happens to write them: 2 in a number field is a double.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import celpy
from celpy import celtypes
from celpy.adapter import json_to_cel

from asyncppo.api.crd import VALIDATIONS, crd
from asyncppo.api.schema import Schema


@dataclass(frozen=True)
class Refusal:
    """path: dotted, below the schema that was asked, with the rule's fieldPath; "" is the whole. message: as the server would say it."""

    path: str
    message: str


def job_of_crd() -> Schema:
    """The schema of a whole job in the CRD, with its rules."""
    node: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return node


def spec_of_crd() -> Schema:
    """The schema of `spec` in the CRD, with its rules."""
    node: Schema = job_of_crd()["properties"]["spec"]
    return node


def refused(spec: dict[str, Any], old: dict[str, Any] | None = None) -> list[Refusal]:
    """What the rules refuse in `spec` (defaults filled in); with `old`, what the transition rules refuse of the change."""
    return list(_refusals(spec_of_crd_once(), spec, old, ""))


def refusals(spec: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    """The messages of `refused`."""
    return [refusal.message for refusal in refused(spec, old)]


def job_refused(job: dict[str, Any]) -> list[Refusal]:
    """What the rules refuse in a whole job, defaults filled in."""
    return list(_refusals(job_of_crd(), job, None, ""))


def defaults_refused(node: Schema, path: str = "") -> list[str]:
    """Paths of the defaults that a server refuses when it is given the definition: it asks each field's rules about the field's own
    default as it is written there, before any default below it is filled in."""
    found = []
    if "default" in node:
        try:
            wrong = bool(list(_refusals(node, node["default"], None, "")))
        except celpy.CELEvalError:
            wrong = True  # "no such key"
        found += [path] if wrong else []
    for name, child in node.get("properties", {}).items():
        found += defaults_refused(child, f"{path}.{name}".removeprefix("."))
    return found


@cache
def spec_of_crd_once() -> Schema:
    """`spec_of_crd`, made once."""
    return spec_of_crd()


def _refusals(node: Schema, value: Any, old: Any, path: str) -> Iterator[Refusal]:
    rules = [v for v in node.get(VALIDATIONS, ()) if _transition(v) == (old is not None)]
    names = {"self": _typed(node, value)} if rules else {}
    if rules:
        # None stands for an optional without a value.
        names["oldSelf"] = None if old is None else _typed(node, old)
    for validation in rules:
        outcome = _evaluated(validation["rule"], names)
        assert isinstance(outcome, celtypes.BoolType), f"{validation['rule']} gave {outcome!r}"
        if not outcome:
            message = validation.get("message") or str(_evaluated(validation["messageExpression"], names))
            yield Refusal(f"{path}{validation.get('fieldPath', '')}".removeprefix("."), message)
    for name, child in node.get("properties", {}).items():
        if isinstance(value, dict) and name in value and (old is None or name in old):
            below = None if old is None else old[name]
            yield from _refusals(child, value[name], below, f"{path}.{name}".removeprefix("."))


def _transition(validation: dict[str, Any]) -> bool:
    return "oldSelf" in validation["rule"] and not validation.get("optionalOldSelf")


def _evaluated(expression: str, names: dict[str, Any]) -> Any:
    """The value. A rule that cannot be evaluated raises CELEvalError."""
    outcome = _program(expression).evaluate(names)
    if isinstance(outcome, celpy.CELEvalError):
        raise outcome
    return outcome


@cache
def _program(expression: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(expression), functions={"format": _format, "hasValue": _has_value})


def _format(template: celtypes.StringType, values: celtypes.ListType) -> celtypes.StringType:
    """Kubernetes' own function of strings, as far as it is used: %s of a string or a number."""
    return celtypes.StringType(str(template) % tuple(_shown(value) for value in values))


def _has_value(optional: Any) -> celtypes.BoolType:
    """Kubernetes' own function of an optional, as far as it is used: `oldSelf` of a new object has none."""
    return celtypes.BoolType(optional is not None)


def _shown(value: Any) -> str:
    if isinstance(value, celtypes.BoolType):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _typed(node: Schema, value: Any) -> Any:
    if "properties" in node:
        return celtypes.MapType({celtypes.StringType(k): _typed(node["properties"][k], v) for k, v in value.items()})
    if node.get("type") == "number":
        return celtypes.DoubleType(value)
    return json_to_cel(value)
