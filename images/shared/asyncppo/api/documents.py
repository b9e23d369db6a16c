"""From a manifest's text to plain data: YAML 1.1 as kubectl reads it, or JSON.

Owns the text, and that reading it takes bounded time whatever it holds: values are counted before they are made, those that an alias
or a merge (`<<`) repeats as often as it does. Does not own what the data means (`manifest.py`).
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from asyncppo.api.problems import ManifestError, Problem

LARGEST_MANIFEST = 1 << 20
"""Bytes; an object in a cluster cannot be larger either."""
DEEPEST = 64
MOST_VALUES = 20_000
"""A job has some hundred fields; the rest is room for lists among an environment's parameters."""
LONGEST_INTEGER = 80
"""Characters; more than any integer that JSON's readers agree on, in any notation."""
_LONGEST_COMPLAINT = 300
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "bool", "int", "float", "null", "merge")
)


class _Loader(yaml.SafeLoader):
    """The safe loader, except: duplicate keys and tags of other types are refused, `1e-3` is a number, `12:30` and `2026-01-01` are
    strings, and there is an end to depth, to the number of values, and to what aliases and merges make of them."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values: dict[yaml.Node, int] = {}
        self._total = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node and all in it, counted. An alias counts as what it stands for."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._depth += 1
        if self._depth > DEEPEST:
            raise _complaint(f"nested more than {DEEPEST} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if node not in self._values:
            if isinstance(event, yaml.AliasEvent):
                raise _complaint(f"the alias *{_short(str(event.anchor))} stands for something that holds it", mark)
            if node.tag not in _PLAIN_TAGS:
                raise _complaint(
                    f"has the type {_short(node.tag)}; only plain values, lists and objects are allowed", mark
                )
            self._values[node] = 1 + sum(self._values[child] for child in _children(node))
        self._total += 1
        if max(self._total, self._values[node]) > MOST_VALUES:
            raise _complaint(
                f"more than {MOST_VALUES:,} values (aliases and merges count as what they stand for)", mark
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """What a node stands for; whatever is wrong with it is said with its place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
            text = f'"{_short(str(node.value))}"' if isinstance(node, yaml.ScalarNode) else "this"
            raise _complaint(f"{text} is no {node.tag.rpartition(':')[2]}", node.start_mark) from error


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    """Of a mapping its keys and values, of a sequence its items."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _complaint(what: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, what, mark)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}… ({len(text)} characters)"


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "yYnNtTfFoO"),
    ("int", r"^(?:[-+]?0b[01]+|[-+]?0o?[0-7]+|[-+]?(?:0|[1-9][0-9]*)|[-+]?0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
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
                raise _complaint(
                    f'the key "{_short(key.value)}" stands twice in one object; keep one of them', key.start_mark
                )
            seen[key.value] = key
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).lower()
    if len(text) > LONGEST_INTEGER:
        raise _complaint(f"an integer of {len(text)} characters", node.start_mark)
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
            return json.loads(text, object_pairs_hook=_unique, parse_int=_json_int)
        except (json.JSONDecodeError, RecursionError):
            pass  # Not JSON: a YAML flow mapping may begin so too, and the YAML reader says where it breaks.
        except ValueError as error:
            raise _broken(where, str(error)) from None
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        raise _broken(where, _described(error)) from None
    except yaml.reader.ReaderError as error:
        line, column = _place(text, error.position)
        raise _broken(where, f"line {line}, column {column}: a character that YAML does not allow") from None
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
                Problem("", f"the manifest has more than {MOST_VALUES:,} values or nests too deeply", "shorten it")
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
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,79}", name):
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


def _place(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _json_int(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(text)} characters")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f'the key "{_short(twice)}" stands twice in one object; keep one of them')
    return made


def _described(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    complaint = str(error.problem or error.context)
    return place + (complaint if len(complaint) <= _LONGEST_COMPLAINT else f"{complaint[:_LONGEST_COMPLAINT]}…")


def _broken(where: str, what: str) -> ManifestError:
    return ManifestError(where, [Problem("", what, "correct the text of the manifest")])
