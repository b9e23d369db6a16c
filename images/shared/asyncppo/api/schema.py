"""Structural schemas: the one JSON schema that the CRD, the reference page and error messages are made from.

Owns the way from pydantic's schema to one that Kubernetes accepts as structural, and Kubernetes' rules of defaulting. Does not own
the fields (the models), rules across them (`rules.py`, `changes.py`) nor what stands around the schema in a CRD (`crd.py`).
"""

from copy import deepcopy
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from asyncppo.api.job import AsyncPPOJob, AsyncPPOJobSpec

Schema = dict[str, Any]
PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"


class _Generator(GenerateJsonSchema):
    """Pydantic's generator without titles and without `anyOf: [X, null]`."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: a title repeats the field's name."""
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """X instead of `anyOf: [X, null]`: a field that may be absent is one that is not required."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Drops `default: null`. Refuses a default that null would replace: API servers put the default back."""
        made = super().default_schema(schema)
        if made.get("default", ...) is None:
            del made["default"]
        elif "default" in made and schema["schema"]["type"] == "nullable":
            raise ValueError(f"null cannot replace the default {made['default']}: an API server would put it back")
        return made


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of `model`, everything inlined. Raises ValueError for what no structural schema can say."""
    made = model.model_json_schema(schema_generator=_Generator, mode="validation")
    return _structural(made, made.get("$defs", {}), ())


@cache
def spec_schema() -> Schema:
    """The schema of `spec`. Do not change what it returns."""
    return structural(AsyncPPOJobSpec)


@cache
def job_schema() -> Schema:
    """The schema of a whole manifest; `metadata` beyond its name and `status` have any content. Do not change what it returns."""
    return structural(AsyncPPOJob)


def _structural(node: Schema, definitions: dict[str, Schema], trail: tuple[str, ...]) -> Schema:
    node = {key: value for key, value in node.items() if key not in ("$defs", "title")}
    if "$ref" in node:
        name = node.pop("$ref").rsplit("/", 1)[1]
        if name in trail:
            raise ValueError(f"{' → '.join((*trail, name))}: a structural schema cannot recurse")
        target = {key: value for key, value in definitions[name].items() if key != "title"}
        # What stands beside the reference is the field's own and wins over what the type says of itself.
        return _structural({**target, **node}, definitions, (*trail, name))
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for side in ("Minimum", "Maximum"):
        bound = node.pop(f"exclusive{side}", None)
        if bound is not None:
            node[side.lower()] = bound
            node[f"exclusive{side}"] = True
    if INT_OR_STRING not in node and any(word in node for word in ("anyOf", "oneOf", "allOf")):
        raise ValueError(f"a union has no structural schema: {node}")
    extra = node.pop("additionalProperties", False)
    if isinstance(extra, dict) and extra:
        node["additionalProperties"] = _structural(extra, definitions, trail)
    elif extra and not node.get(PRESERVE):
        raise ValueError(f"free content needs {PRESERVE}: {node}")
    if "items" in node:
        node["items"] = _structural(node["items"], definitions, trail)
    if "properties" in node:
        node["properties"] = {k: _structural(v, definitions, trail) for k, v in node["properties"].items()}
        if "default" in node:
            own, whole = without_nulls(node, node["default"]), with_defaults(node, {})
            if own != whole:
                raise ValueError(f"the default {own} differs from its fields' own defaults {whole}")
            # Defaults of fields apply only where their object exists.
            node["default"] = {}
    return node


def with_defaults(node: Schema, value: Any) -> Any:
    """`value` as the API server stores it: nulls of known fields pruned, then defaults filled in, from the top down."""
    if isinstance(value, list) and "items" in node:
        return [with_defaults(node["items"], item) for item in value]
    if not isinstance(value, dict) or "properties" not in node:
        return value
    filled = without_nulls(node, value)
    for name, child in node["properties"].items():
        if name not in filled and "default" in child:
            filled[name] = deepcopy(child["default"])
        if name in filled:
            filled[name] = with_defaults(child, filled[name])
    return filled


def without_nulls(node: Schema, value: Any) -> Any:
    """`value` without the nulls of known fields, which mean "not set"."""
    if not isinstance(value, dict) or "properties" not in node:
        return value
    fields = node["properties"]
    kept = {k: v for k, v in value.items() if v is not None or k not in fields}
    return {k: without_nulls(fields[k], v) if k in fields else v for k, v in kept.items()}


def at(node: Schema, path: str) -> Schema:
    """The schema of the field at a dotted path below `node`. Raises KeyError when there is none."""
    for name in path.split(".") if path else ():
        node = node["properties"][name]
    return node


def allowed(node: Schema) -> str:
    """What a value must be, in words."""
    if "enum" in node:
        values = [str(value) for value in node["enum"]]
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if INT_OR_STRING in node:
        return 'a quantity: 2, "500m", "10Gi"'
    match node.get("type"):
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("an integer" if kind == "integer" else "a number") + _bounds(node)
        case "string":
            return "a string" + _string_limits(node)
        case "array":
            return f"a list; each item: {allowed(node['items'])}"
        case "object" if "properties" in node:
            return "an object with " + ", ".join(node["properties"])
        case "object" if "additionalProperties" in node:
            most = f" of at most {node['maxProperties']} entries" if "maxProperties" in node else ""
            return f"an object{most}; each value: {allowed(node['additionalProperties'])}"
        case _:
            return "an object with any content"


def _bounds(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None and not node.get("exclusiveMinimum") and not node.get("exclusiveMaximum"):
        return f" from {_plain(low)} to {_plain(high)}"
    words = []
    if low is not None:
        words.append(f"{'above' if node.get('exclusiveMinimum') else 'at least'} {_plain(low)}")
    if high is not None:
        words.append(f"{'below' if node.get('exclusiveMaximum') else 'at most'} {_plain(high)}")
    return " " + " and ".join(words) if words else ""


def _plain(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _string_limits(node: Schema) -> str:
    words = []
    if "maxLength" in node:
        words.append(f" of {node.get('minLength', 0)} to {node['maxLength']} characters")
    if "pattern" in node:
        words.append(f" matching {node['pattern']}")
    if "format" in node:
        words.append(f" ({node['format']})")
    return "".join(words)
