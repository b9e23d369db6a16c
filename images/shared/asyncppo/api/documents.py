"""From a manifest's text to plain data: YAML 1.1 as kubectl reads it, or JSON.

Owns the text. Does not own what the data means (`manifest.py`).
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from asyncppo.api.problems import ManifestError, Problem

LARGEST_MANIFEST = 1 << 20
"""Bytes; an object in a cluster cannot be larger either."""
DEEPEST = 64
MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The safe loader, except: duplicate keys are refused, `1e-3` is a number, `12:30` and `2026-01-01` are strings."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO"),
    ("int", r"^(?:[-+]?0b[01]+|[-+]?0o?[0-7]+|[-+]?(?:0|[1-9][0-9]*)|[-+]?0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[str, yaml.Node] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key.value}" stands twice in one object; keep one of them', key.start_mark
                )
            seen[key.value] = key
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).lower()
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
    return int(text.replace("0", "0o", 1), 0) if octal else int(text, 0)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def read_document(text: str, where: str) -> Any:
    """The one document of a manifest as plain data. Raises ManifestError when it is not one well-formed document."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except (json.JSONDecodeError, RecursionError):
            pass  # Not JSON: a YAML flow mapping may begin so too, and the YAML reader says where it breaks.
        except ValueError as error:
            raise _broken(where, str(error)) from None
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        raise _broken(where, _described(error)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _broken(where, f"not readable as YAML: {error}") from None
    except RecursionError:
        raise _broken(where, "nested too deeply") from None
    if len(documents) != 1:
        found = f"holds {len(documents)} documents" if documents else "is empty"
        raise ManifestError(
            where, [Problem("", f"the manifest {found}; allowed: one AsyncPPOJob", "keep one job in a file")]
        )
    return documents[0]


def unplain(value: Any) -> list[Problem]:
    """What keeps `value` from being JSON of a reasonable size. The rest of the API relies on there being nothing."""
    problems: list[Problem] = []
    for count, (path, part, depth) in enumerate(_parts(value, "", 0)):
        what = _unfit(part, depth)
        if what:
            problems.append(Problem(path, what, "write plain YAML: objects, lists, strings, numbers, booleans"))
        if count >= MOST_VALUES or (what and depth >= DEEPEST):
            problems.append(
                Problem("", f"the manifest has more than {MOST_VALUES} values or nests too deeply", "shorten it")
            )
            break
    return problems


def _parts(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    yield path, value, depth
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _parts(child, join(path, key), depth + 1)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _parts(child, f"{path}[{index}]", depth + 1)


def join(path: str, key: Any) -> str:
    """The path of the field `key` of the object at `path`: dotted, in brackets where a dot would mislead."""
    name = str(key)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        return f"{path}[{json.dumps(name[:80])}]"
    return f"{path}.{name}" if path else name


def _unfit(value: Any, depth: int) -> str | None:
    if depth >= DEEPEST:
        return f"is nested more than {DEEPEST} deep"
    match value:
        case dict():
            wrong = [key for key in value if not isinstance(key, str) or not _encodable(key)]
            return f"has a key that is not a string: {wrong[0]!r:.80}" if wrong else None
        case str():
            return None if _encodable(value) else "holds characters that are no Unicode text"
        case float():
            return None if math.isfinite(value) else f"is {value}, not a finite number"
        case int():
            return None if -(2**63) <= value < 2**64 else "is an integer of more than 64 bits"
        case list() | None:
            return None
        case _:
            return f"is a {type(value).__name__}, which JSON does not have"


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" stands twice in one object; keep one of them')
    return made


def _described(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{error.problem or error.context}"


def _broken(where: str, what: str) -> ManifestError:
    return ManifestError(where, [Problem("", what, "correct the text of the manifest")])
