"""What the API names and no program does yet: refused plainly, never ignored.

Owns the tables and what is made from them: the refusals here and their CEL twins in the CRD. When a part is built, its line here goes,
and nothing else in the API changes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from asyncppo.api.documents import join
from asyncppo.api.problems import Problem, shown
from asyncppo.api.schema import Schema, at, spec_schema

NOT_BUILT: tuple[tuple[str, str], ...] = (("weightSync.transport", "NCCL"),)
"""Enum values that are not built: (path below `spec`, value)."""

ONLY: tuple[tuple[str, Any], ...] = (("sampling.topP", 1.0),)
"""Fields of which one value only is built: (path below `spec`, that value)."""

WITHOUT_DEVICES: tuple[tuple[str, str, str], ...] = (
    ("learner", "learner", "the learner"),
    ("oldLogit", "old-logit", "old-logit workers"),
)
"""Roles whose programs use no device: (field below `spec`, name of the container, in words). What a device plugin offers is an extended
resource, and its name has a domain: nvidia.com/gpu, amd.com/gpu, example.org/tpu."""


def built_values(path: str, table: Sequence[tuple[str, str]] = NOT_BUILT) -> list[str]:
    """The values of the enum at `path` (below `spec`) that a job can use today."""
    return [str(value) for value in at(spec_schema(), path)["enum"] if (path, value) not in table]


def not_built(spec: Any) -> list[Problem]:
    """Every use of something that is not built, in a spec as JSON that need not be valid otherwise."""
    problems = []
    for path, value in NOT_BUILT:
        if _get(spec, path) == value:
            problems.append(_problem(path, value, _other_values(path)))
    for path, value in ONLY:
        found = _get(spec, path)
        if isinstance(found, int | float) and not isinstance(found, bool) and found != value:
            problems.append(_problem(path, found, _only(value)))
    for role, container, words in WITHOUT_DEVICES:
        for where, resources in _resources(_get(spec, role), container):
            for path, amount in _extended(resources):
                what = f"{_no_devices(words)} (found: {shown(amount)})"
                problems.append(Problem(f"spec.{role}.{where}.{path}", what, _NO_DEVICES_REMEDY))
    return problems


def not_built_rules() -> Iterator[tuple[str, Schema]]:
    """The CEL twins: the node below `spec` that each is hung on, and the rule. The overlay `template` is free content, which CEL cannot
    see: the operator refuses devices in it."""
    for path, value in NOT_BUILT:
        yield path, {"rule": f"self != {json.dumps(value)}", "message": str(_problem("", value, _other_values(path)))}
    for path, value in ONLY:
        words = f"%s is not implemented yet; {_only(value)}"
        yield path, {"rule": f"self == {json.dumps(value)}", "messageExpression": f"{json.dumps(words)}.format([self])"}
    for role, _, words in WITHOUT_DEVICES:
        for kind in _KINDS:
            message = f"{_no_devices(words)}; {_NO_DEVICES_REMEDY}"
            yield f"{role}.resources.{kind}", {"rule": "!self.exists(name, name.contains('/'))", "message": message}


_KINDS = ("requests", "limits")
_NO_DEVICES_REMEDY = "leave it out"


def _no_devices(words: str) -> str:
    return f"extended resources, such as GPUs of any vendor, are not implemented yet for {words}, and would lie idle"


def _resources(role: Any, container: str) -> Iterator[tuple[str, Any]]:
    """Where a role's own container is given resources: in its field, and in the overlay of its pods."""
    yield "resources", _get(role, "resources")
    containers = _get(role, "template.spec.containers")
    for index, item in enumerate(containers if isinstance(containers, list) else ()):
        if _get(item, "name") == container:
            yield f"template.spec.containers[{index}].resources", _get(item, "resources")


def _extended(resources: Any) -> Iterator[tuple[str, Any]]:
    for kind in _KINDS:
        amounts = _get(resources, kind)
        for name, amount in (amounts if isinstance(amounts, Mapping) else {}).items():
            if isinstance(name, str) and "/" in name:
                yield join(kind, name), amount


def _other_values(path: str) -> str:
    built = built_values(path)
    return f"use {'one of ' * (len(built) > 1)}{', '.join(built)}"


def _only(value: Any) -> str:
    return f"use {shown(value)}, or leave it out"


def _problem(path: str, found: Any, remedy: str) -> Problem:
    return Problem(f"spec.{path}" if path else "", f"{shown(found)} is not implemented yet", remedy)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
