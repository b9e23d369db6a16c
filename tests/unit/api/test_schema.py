"""From pydantic's schema to a structural one: each row of what Kubernetes wants otherwise, and its rules of defaulting."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from tests.unit.api.builders import leaves

from asyncppo.api.base import ApiModel
from asyncppo.api.roles import Quantity
from asyncppo.api.schema import Schema, allowed, at, job_schema, spec_schema, structural, with_defaults, without_nulls
from asyncppo.api.training import Switchable


class Inner(ApiModel):
    """What the type says."""

    bounded: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A number."""
    nothing: Annotated[int, Field(ge=0)] | None = None
    """May be left out."""


class Outer(ApiModel):
    """Outer."""

    literal: Literal["only"]
    """One value."""
    inner: Inner = Inner()
    """What the field says,
    over two lines."""
    again: Inner | None = None
    """The type used twice."""
    switched: Switchable = 3.0
    """Zero turns it off."""
    amounts: dict[str, Quantity] = {}
    """Quantities by name."""


OUTER = structural(Outer)


def test_references_are_inlined_and_the_fields_words_win() -> None:
    assert at(OUTER, "inner")["description"] == "What the field says, over two lines."
    assert at(OUTER, "again.bounded") == at(OUTER, "inner.bounded")
    assert "$ref" not in str(OUTER)
    assert "$defs" not in OUTER
    assert "title" not in str(OUTER)


def test_a_constant_is_an_enum() -> None:
    assert at(OUTER, "literal")["enum"] == ["only"]


def test_exclusive_bounds_are_booleans() -> None:
    bounded = at(OUTER, "inner.bounded")
    assert (bounded["minimum"], bounded["exclusiveMinimum"]) == (0, True)
    assert (bounded["maximum"], bounded["exclusiveMaximum"]) == (1, True)


def test_optional_fields_have_neither_null_nor_default() -> None:
    assert at(OUTER, "inner.nothing") == {"description": "May be left out.", "minimum": 0, "type": "integer"}
    assert "default" not in at(OUTER, "again")


def test_what_zero_turns_off_is_a_number() -> None:
    assert at(OUTER, "switched") == {
        "default": 3.0,
        "description": "Zero turns it off.",
        "minimum": 0.0,
        "type": "number",
    }
    for given in (0, 0.0):
        assert Outer(literal="only", switched=given).switched is None
    assert Outer(literal="only", switched=None).model_dump(mode="json")["switched"] == 0
    with pytest.raises(ValueError, match="greater than or equal"):
        Outer(literal="only", switched=-1)


def test_sub_objects_default_to_empty_and_required_is_required() -> None:
    assert at(OUTER, "inner")["default"] == {}
    assert OUTER["required"] == ["literal"]


def test_quantities_are_int_or_string() -> None:
    amount = at(OUTER, "amounts")["additionalProperties"]
    assert amount["x-kubernetes-int-or-string"] is True
    assert "type" not in amount


class Recursive(ApiModel):
    """Recursive."""

    child: "Recursive | None" = None


class Union(ApiModel):
    """A union."""

    either: int | str


class Free(ApiModel):
    """Free content that is not marked."""

    content: dict[str, Any]


class OtherDefault(ApiModel):
    """A default that the fields' own defaults do not make."""

    inner: Inner = Inner(bounded=0.25)


class NullableDefault(ApiModel):
    """A default that null would replace."""

    switched: float | None = 3.0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NullableDefault, "null cannot replace"),
        (Recursive, "cannot recurse"),
        (Union, "union"),
        (Free, "preserve-unknown"),
        (OtherDefault, "differs from"),
    ],
)
def test_what_no_structural_schema_can_say(model: type[ApiModel], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        structural(model)


def test_defaults_are_filled_from_the_top_down() -> None:
    assert with_defaults(OUTER, {"literal": "only"}) == {
        "literal": "only",
        "inner": {"bounded": 0.5},
        "switched": 3.0,
        "amounts": {},
    }


def test_defaults_leave_what_is_there_and_what_is_unknown() -> None:
    given = {"inner": {"bounded": 0.1, "x": None}, "again": {}, "switched": None, "y": {"z": None}}
    assert with_defaults(OUTER, given) == {
        "inner": {"bounded": 0.1, "x": None},
        "again": {"bounded": 0.5},
        "switched": 3.0,
        "amounts": {},
        "y": {"z": None},
    }


def test_filling_in_does_not_share_the_schemas_own_values() -> None:
    with_defaults(OUTER, {})["amounts"]["cpu"] = 1
    assert at(OUTER, "amounts")["default"] == {}


def test_nulls_that_mean_nothing_go() -> None:
    assert without_nulls(OUTER, {"inner": {"nothing": None}, "again": None, "x": None}) == {"inner": {}, "x": None}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "boolean"}, "true or false"),
        ({"type": "integer", "minimum": 1, "maximum": 5}, "an integer from 1 to 5"),
        ({"type": "integer", "minimum": 1}, "an integer at least 1"),
        ({"type": "integer"}, "an integer"),
        (
            {"type": "number", "minimum": 0.0, "exclusiveMinimum": True, "maximum": 10.0},
            "a number above 0 and at most 10",
        ),
        ({"type": "string", "enum": ["a", "b"]}, "one of a, b"),
        ({"type": "string", "enum": ["a"]}, "a"),
        ({"type": "string", "minLength": 1, "maxLength": 9}, "a string of 1 to 9 characters"),
        ({"type": "string", "format": "date-time"}, "a string (date-time)"),
        ({"type": "array", "items": {"type": "boolean"}}, "a list; each item: true or false"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "an object; each value: an integer"),
        ({"type": "object", "properties": {"a": {}, "b": {}}}, "an object with a, b"),
        ({"type": "object"}, "an object with any content"),
    ],
)
def test_words_for_what_is_allowed(node: Schema, words: str) -> None:
    assert allowed(node) == words


def test_every_field_has_words() -> None:
    assert len({path: allowed(node) for path, node in leaves(spec_schema())}) > 80
    assert "spec" in job_schema()["properties"]
