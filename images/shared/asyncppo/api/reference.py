"""The reference page of the API, made from the models: `python -m asyncppo.api.reference --write|--check`.

Owns how the page is laid out. Does not own any word on a field: those are the models' docstrings.
"""

import json
from collections.abc import Iterator

from asyncppo.api.changes import CHANGEABLE, ONLY_UPWARDS
from asyncppo.api.generated import generated_file_main
from asyncppo.api.job import API_VERSION, KIND, NAME_RULE, SHORT_NAME
from asyncppo.api.rules import RULES
from asyncppo.api.schema import Schema, allowed, spec_schema, structural
from asyncppo.api.status import JobStatus
from asyncppo.api.warnings import WARNINGS

PATH = "docs/api.md"

_HEAD = f"""# {KIND}

<!-- Made by `python -m asyncppo.api.reference --write` from the models in asyncppo.api; edit those. -->

`apiVersion: {API_VERSION}`, `kind: {KIND}`, namespaced, short name `{SHORT_NAME}`.
`metadata.name`: {NAME_RULE}.

`asyncppo validate MANIFEST` checks a manifest and names every problem in it. A cluster checks the same: the fields by the CRD's
schema, the rules across fields and what may change by its CEL rules where the API server knows such (tried: 1.36 does, 1.20 does not),
and everything once more by the operator, which creates nothing for a job that is not valid.

A field whose default is *required* must be set; one without a default may be left out. `null` means "not set". Quantities are
Kubernetes' own. What is not built yet is refused with "not implemented yet", never ignored.
"""

_CHANGES = """## What may change on a job that exists

How the work is done may change, what is learnt may not: another model, objective, strategy or seed is another job. These fields may
change; `suspend`, `rollout.replicas` and the deadlines take effect at once, the others when the role's program next starts. A refused
change leaves the job running as it was.
"""

_RULES = """## Rules across fields

| fields | refused when it does not hold | what to do |
|---|---|---|
"""

_WARNINGS = """## What is warned about

Valid, but most likely not what is wanted. `asyncppo validate` and `asyncppo run` print these warnings, and a cluster has them in the
message of the condition `Accepted`.

| field | warning | what to do |
|---|---|---|
"""


def page() -> str:
    """`docs/api.md`."""
    parts = [_HEAD]
    sections = spec_schema()["properties"]
    plain = {name: node for name, node in sections.items() if "properties" not in node}
    parts.append("## spec\n\n" + _table(_rows("spec", {"properties": plain, "required": spec_schema()["required"]})))
    for name, node in sections.items():
        if "properties" in node:
            must = " Required." if name in spec_schema()["required"] else ""
            parts.append(f"## spec.{name}\n\n{node['description']}{must}\n\n" + _table(_rows(f"spec.{name}", node)))
    parts.append(
        _RULES + "".join(f"| {_code(rule.reads)} | {_cell(rule.message)} | {_cell(rule.remedy)} |\n" for rule in RULES)
    )
    parts.append(
        _WARNINGS + "".join(f"| `{one.path}` | {_cell(one.message)} | {_cell(one.remedy)} |\n" for one in WARNINGS)
    )
    changeable = [f"- `spec.{path}`{' (upwards)' if path == ONLY_UPWARDS else ''}\n" for path in CHANGEABLE]
    parts.append(_CHANGES + "\n" + "".join(changeable))
    status = [
        f"| `{path}` | {_type(node)} | {_cell(node['description'])} |\n"
        for path, node, _ in _fields("status", structural(JobStatus))
    ]
    parts.append(
        "## status\n\nWritten by the operator.\n\n| field | type | description |\n|---|---|---|\n" + "".join(status)
    )
    return "\n".join(parts)


def _rows(path: str, node: Schema) -> Iterator[str]:
    for field, child, required in _fields(path, node):
        default = "*required*" if required else _default(child)
        yield f"| `{field}` | {_type(child)} | {default} | {_allowed(child)} | {_cell(child['description'])} |\n"


def _table(rows: Iterator[str]) -> str:
    return "| field | type | default | allowed | description |\n|---|---|---|---|---|\n" + "".join(rows)


def _fields(path: str, node: Schema) -> Iterator[tuple[str, Schema, bool]]:
    for name, child in node["properties"].items():
        yield f"{path}.{name}", child, name in node.get("required", ())
        below = child.get("items", child)
        if "properties" in below:
            yield from _fields(f"{path}.{name}[]" if "items" in child else f"{path}.{name}", below)


def _type(node: Schema) -> str:
    if "x-kubernetes-int-or-string" in node:
        return "quantity"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    if "items" in node:
        return f"list of {_type(node['items'])}"
    return "enum" if "enum" in node else str(node["type"])


def _default(node: Schema) -> str:
    return f"`{json.dumps(node['default'])}`" if "default" in node and "properties" not in node else ""


def _allowed(node: Schema) -> str:
    if "properties" in node or node.get("type") == "boolean":
        return ""
    if "pattern" in node and "x-kubernetes-int-or-string" not in node:
        return f"`{node['pattern']}`, at most {node['maxLength']} characters".replace("|", "\\|")
    words = allowed(node)
    for article in ("one of ", "an integer ", "a number ", "a string ", "an object ", "a "):
        if words.startswith(article):
            words = words.removeprefix(article)
            break
    return _cell(words)


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    generated_file_main(PATH, page)
