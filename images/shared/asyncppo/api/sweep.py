"""A field's values to go through: `FIELD=a,b,c` on a command line, and a job with one of them set.

Owns the notation and its errors. Does not own the manifest's rules: every job made here has been asked all of them.
"""

import json
from dataclasses import dataclass
from typing import Any

import yaml

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import dump_manifest, parse_manifest
from asyncppo.api.problems import did_you_mean
from asyncppo.api.schema import PRESERVE, Schema, spec_schema
from asyncppo.errors import UserError


@dataclass(frozen=True)
class Sweep:
    """path: below `spec`, in camelCase. values: as in the manifest, at least one, each once."""

    path: str
    values: tuple[Any, ...]


def parse_sweep(text: str) -> Sweep:
    """`staleness.maxVersions=1,2,4`; the path may begin with `spec.`. Raises UserError."""
    path, equals, listed = text.partition("=")
    path = path.strip().removeprefix("spec.")
    if not equals or not path or not listed.strip():
        raise UserError(f"--sweep {text}: must be FIELD=a,b,c, such as staleness.maxVersions=1,2,4")
    _check_path(path)
    values = tuple(_value(text, part) for part in listed.split(","))
    if len({json.dumps(value) for value in values}) != len(values):
        raise UserError(f"--sweep {text}: names a value twice; name each once")
    return Sweep(path, values)


def with_fields(job: AsyncPPOJob, fields: dict[str, Any], where: str, *, lenient: bool = False) -> AsyncPPOJob:
    """The job with these fields set (path below `spec` → value; None removes); every rule is asked again. Raises ManifestError."""
    document = json.loads(dump_manifest(job))
    for path, value in fields.items():
        *parents, name = path.split(".")
        node = document["spec"]
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            node.pop(name, None)
        else:
            node[name] = value
    return parse_manifest(document, where, lenient=lenient)


def _value(text: str, part: str) -> Any:
    try:
        value = yaml.safe_load(part)
    except yaml.YAMLError:
        value = part.strip()
    if value is None or isinstance(value, dict | list):
        raise UserError(f"--sweep {text}: each value must be a number or a word, found {part.strip() or 'nothing'}")
    return value


def _check_path(path: str) -> None:
    node: Schema = spec_schema()
    done: list[str] = []
    for name in path.split("."):
        if node.get(PRESERVE):
            return
        known = list(node.get("properties", ()))
        if name not in known:
            here = ".".join(["spec", *done])
            near = did_you_mean(name, known)
            allowed = f"allowed in {here}: {', '.join(known)}" if known else f"{here} has no fields"
            raise UserError(
                f"--sweep {path}: unknown field {name}; {allowed}" + (f"; did you mean {near}?" if near else "")
            )
        node = node["properties"][name]
        done.append(name)
    if "properties" in node:
        raise UserError(f"--sweep {path}: is an object; name one of its fields: {', '.join(node['properties'])}")
