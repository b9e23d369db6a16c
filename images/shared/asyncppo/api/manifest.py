"""Manifests in and out: from a file or an object to an `AsyncPPOJob` that every program can rely on, and back to text.

Owns the order of the checks and how each failure is said: every problem at once, each with its path, what was found, what is allowed
and what to do. Does not own the text format (`documents.py`), the rules (`rules.py`) nor what is not built yet (`implemented.py`).
"""

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from asyncppo.api.changes import changes_refused as changes_refused
from asyncppo.api.changes import job_fingerprint as job_fingerprint
from asyncppo.api.documents import LARGEST_MANIFEST, join, read_document, unplain
from asyncppo.api.implemented import not_built
from asyncppo.api.job import API_VERSION, KIND, NAME_PATTERN, NAME_REMEDY, NAME_RULE, AsyncPPOJob, AsyncPPOJobSpec
from asyncppo.api.problems import ManifestError, Problem, did_you_mean, shown
from asyncppo.api.rules import broken_rules
from asyncppo.api.schema import INT_OR_STRING, Schema, allowed, job_schema, without_nulls
from asyncppo.errors import UserError

Location = tuple[str | int, ...]


def load_manifest(path: Path | str, *, lenient: bool = False) -> AsyncPPOJob:
    """The job in a YAML or JSON file. Raises UserError: the file cannot be read, or ManifestError with every problem in it.

    lenient: as for `parse_manifest`.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            content = stream.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give the path of a manifest") from error
    if len(content) > LARGEST_MANIFEST:
        raise UserError(
            f"{file}: larger than {LARGEST_MANIFEST} bytes; a manifest that large fits no cluster, shorten it"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    return parse_manifest(read_document(text, str(file)), str(file), lenient=lenient)


def parse_manifest(document: Any, where: str, *, lenient: bool = False) -> AsyncPPOJob:
    """The job in plain data: a parsed file, or an object from the API server. `where` names the source in messages.

    Raises ManifestError with every problem: fields, rules across them, parts that are not built yet.
    lenient: for what does not start the job, an estimate or the reading of one that was accepted earlier: it may ask for parts that are
    not built, and be called what Services cannot be called.
    """
    if not isinstance(document, dict):
        found = f"found {shown(document)}" if document is not None else "found nothing"
        raise ManifestError(
            where, [Problem("", f"{found}; allowed: an object of kind {KIND}", f"begin with `kind: {KIND}`")]
        )
    problems = unplain(document)
    if problems:
        raise ManifestError(where, problems)
    if document.get("kind") not in (KIND, None) or document.get("apiVersion") not in (API_VERSION, None):
        raise ManifestError(where, list(_identity(document)))
    document = without_nulls(job_schema(), document)
    unbuilt = [] if lenient else [*_unfit_name(document.get("metadata")), *not_built(document.get("spec"))]
    try:
        job = _validated(document)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [_problem(detail) for detail in details]
        spec, doubtful = _repaired(document, [detail["loc"] for detail in details])
        if spec is not None:
            problems += broken_rules(spec, doubtful)
        raise ManifestError(where, problems + unbuilt) from None
    problems = broken_rules(job.spec) + unbuilt
    if problems:
        raise ManifestError(where, problems)
    return job


def dump_manifest(job: AsyncPPOJob) -> str:
    """`job` as canonical JSON, every default written out: what a role program gets by `--job FILE`; `load_manifest` reads it back."""
    plain = without_nulls(job_schema(), job.model_dump(mode="json", by_alias=True))
    return json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def _validated(document: dict[str, Any]) -> AsyncPPOJob:
    """By JSON's types ("8" is no integer) and by the manifest's names only: what an API server would refuse is refused."""
    return AsyncPPOJob.model_validate_json(json.dumps(document), strict=True, by_alias=True, by_name=False)


def _identity(document: dict[Any, Any]) -> Iterator[Problem]:
    for name, value in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(name) != value:
            found = f"found {shown(document[name])}" if name in document else "missing"
            yield Problem(
                name, f"{found}; allowed: {value}", f"write `{name}: {value}`; this file is not a job otherwise"
            )


def _problem(detail: ErrorDetails) -> Problem:
    """One of pydantic's errors in our words. What is allowed comes from the schema, so that it never contradicts the reference."""
    location = detail["loc"]
    node, parent = _node(location), _node(location[:-1])
    name, found = str(location[-1]) if location else "", detail["input"]
    path = _path(location)
    match detail["type"]:
        case "extra_forbidden":
            known = list(parent.get("properties", ()))
            near = did_you_mean(name, known)
            remedy = f'did you mean "{near}"?' if near else "remove it"
            return Problem(path, f"unknown field; allowed here: {', '.join(known)}", remedy)
        case "missing":
            return Problem(path, f"missing; allowed: {allowed(node)}", "add it")
        case _ if location == ("metadata", "name") and isinstance(found, str):
            return _name_problem(found)
        case _:
            return Problem(path, f"found {shown(found)}; allowed: {allowed(node)}", _remedy(node, found))


def _unfit_name(metadata: Any) -> list[Problem]:
    """A name that fits the schema, which also holds for jobs of earlier releases, and still no Service."""
    name = metadata.get("name") if isinstance(metadata, dict) else None
    pattern = job_schema()["properties"]["metadata"]["properties"]["name"]["pattern"]
    if not isinstance(name, str) or not re.fullmatch(pattern, name) or re.fullmatch(NAME_PATTERN, name):
        return []
    return [_name_problem(name)]


def _name_problem(name: str) -> Problem:
    return Problem("metadata.name", f"found {shown(name)}; allowed: {NAME_RULE}", NAME_REMEDY)


def _remedy(node: Schema, found: Any) -> str:
    if "enum" in node and isinstance(found, str):
        near = did_you_mean(found, [str(value) for value in node["enum"]])
        return f"did you mean {near}?" if near else "choose one of these"
    if found is None:
        return "give it a value, or remove the line to take the default"
    kind = node.get("type")
    if INT_OR_STRING not in node and kind in ("integer", "number", "boolean") and isinstance(found, str):
        return "write it without quotes"
    if kind == "string" and isinstance(found, int | float):
        return "write it in quotes"
    if kind in ("integer", "number") and isinstance(found, int | float) and not isinstance(found, bool):
        return (
            "choose a whole number"
            if kind == "integer" and isinstance(found, float)
            else "choose a value within these bounds"
        )
    return "change it to what is allowed"


def _path(location: Location) -> str:
    path = ""
    for part in location:
        path = f"{path}[{part}]" if isinstance(part, int) else join(path, part)
    return path


def _node(location: Location) -> Schema:
    """The schema at a location; {} ("any content") where the schema says nothing."""
    node = job_schema()
    for part in location:
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return node


def _repaired(document: dict[str, Any], locations: list[Location]) -> tuple[AsyncPPOJobSpec | None, list[str]]:
    """A spec in which every wrong value is replaced by a right one, so that the rules can be asked about the others too.

    Returns it with the paths (below `spec`) whose values are made up. None: too much is wrong.
    """
    repaired = deepcopy(document)
    for location in locations:
        parent: Any = repaired
        for part in location[:-1]:
            parent = parent[part]
        name = location[-1]
        parent.pop(name, None)
        if name in _node(location[:-1]).get("required", ()):
            parent[name] = _some(_node(location))
    doubtful = [".".join(map(str, location[1:])) for location in map(_meant, locations) if location[:1] == ("spec",)]
    try:
        return _validated(repaired).spec, doubtful
    except ValidationError:
        return None, doubtful


def _meant(location: Location) -> Location:
    """The field whose value is in doubt because of a problem here: a misspelt field's right name, or the place itself."""
    known = list(_node(location[:-1]).get("properties", ()))
    near = did_you_mean(str(location[-1]), known)
    return location if location[-1] in known or near is None else (*location[:-1], near)


def _some(node: Schema) -> Any:
    """Some value that `node` allows; only ever looked at by rules that do not read it."""
    if "enum" in node:
        return node["enum"][0]
    match node.get("type"):
        case "integer" | "number":
            return max(node.get("minimum", 0), 1)
        case "object":
            return {name: _some(node["properties"][name]) for name in node.get("required", ())}
        case _:
            return "x"
