"""What this operator has applied of an object, read back from the API server's own record (managedFields). Pure.

Owns the reading of that record. It is how an operator of a newer version, or with other settings, keeps a running job's pods as the
one before it rendered them: no copy of that rendering is kept anywhere else.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from asyncppo_operator import names

Object = dict[str, Any]


def applied(raw: Mapping[str, Any], *path: str) -> Object:
    """The part of the object at `path` that our field manager applied; empty when it applied nothing of it."""
    for entry in (raw.get("metadata") or {}).get("managedFields") or []:
        if (
            entry.get("manager") == names.FIELD_MANAGER
            and entry.get("operation") == "Apply"
            and not entry.get("subresource")
        ):
            fields: Any = entry.get("fieldsV1")
            value: Any = raw
            for key in path:
                fields, value = (fields or {}).get(f"f:{key}"), (value or {}).get(key)
            if isinstance(fields, Mapping) and isinstance(value, Mapping):
                return dict(_owned(fields, value))
    return {}


def _owned(fields: Mapping[str, Any], value: Any) -> Any:
    """`value` without what is not in `fields`; a field without any of its own is owned as a whole."""
    inner = {key: found for key, found in fields.items() if key != "."}
    if not inner:
        return value
    if isinstance(value, Mapping):
        return {key: _owned(inner[f"f:{key}"], found) for key, found in value.items() if f"f:{key}" in inner}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [kept for item in value for kept in _item(inner, item)]
    return value


def _item(fields: Mapping[str, Any], item: Any) -> list[Any]:
    """An element of a list, at most once: of a list of objects it is told by its keys, of a set by its value."""
    for field, found in fields.items():
        kind, _, told = field.partition(":")
        if kind == "v" and json.loads(told) == item:
            return [item]
        if kind == "k" and isinstance(item, Mapping) and json.loads(told).items() <= item.items():
            return [_owned(found, item)]
    return []
