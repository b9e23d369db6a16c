"""Whatever is put in, out comes a job or a UserError; and what comes out goes in again."""

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.api.builders import SPEC, changed, document, fields

from asyncppo.api.documents import read_document
from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import dump_manifest, load_manifest, parse_manifest
from asyncppo.api.problems import ManifestError
from asyncppo.api.schema import Schema, spec_schema
from asyncppo.errors import UserError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None), max_size=8),
    st.sampled_from([10**400, "1", "None", "GAE", "Interruption", "", "a:b", "10Gi", b"bytes", 2**63, -(2**63) - 1]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = list(fields(spec_schema()))


def _near(node: Schema) -> st.SearchStrategy[Any]:
    """Values that a user of this field would write, right or nearly right."""
    if "enum" in node:
        return st.sampled_from([*node["enum"], str(node["enum"][0]).lower()])
    if node.get("type") in ("integer", "number"):
        low, high = node.get("minimum", 0), node.get("maximum", 100)
        return st.sampled_from([low, high, low - 1, high + 1, low + 1, float(low) + 0.5])
    if node.get("type") == "boolean":
        return st.booleans()
    return SCALARS if "properties" not in node else st.just({})


CHANGES = st.lists(
    st.one_of([st.tuples(st.just(path), _near(node) | ANYTHING) for path, node in FIELDS]),
    max_size=5,
)
NAMES = st.sampled_from([path.rsplit(".", 1)[-1] for path, _ in FIELDS]) | st.text(max_size=6)


def _spec(changes: list[tuple[str, Any]]) -> dict[str, Any]:
    """A spec with the changes that fit on one another: a scalar has no fields below."""
    spec: dict[str, Any] = SPEC
    for path, value in changes:
        try:
            spec = changed(spec, {path: value})
        except (AttributeError, TypeError):
            continue
    return spec


def accepted(raw: Any) -> AsyncPPOJob | None:
    """The job, or None when it was refused with words for people."""
    try:
        job = parse_manifest(raw, "m.yaml")
    except ManifestError as caught:
        refusal = caught
    else:
        assert parse_manifest(read_document(dump_manifest(job), "m.yaml"), "m.yaml") == job
        return job
    assert refusal.problems
    for problem in refusal.problems:
        assert problem.what
        assert problem.remedy
        assert len(str(problem)) < 2000
    return None


@given(CHANGES)
@settings(max_examples=2000)
def test_2000_specs_raise_nothing_but_user_errors(changes: list[tuple[str, Any]]) -> None:
    accepted(document() | {"spec": _spec(changes)})


@given(st.dictionaries(NAMES, ANYTHING, max_size=4), st.sampled_from(["spec", "metadata", "algorithm"]))
@settings(max_examples=300)
def test_any_object_in_any_place(content: dict[str, Any], place: str) -> None:
    raw = document()
    if place == "algorithm":
        raw["spec"]["algorithm"] = content
    else:
        raw[place] = content
    accepted(raw)


@given(ANYTHING)
@settings(max_examples=300)
def test_any_document(raw: Any) -> None:
    assert accepted(raw) is None


@given(st.text(st.sampled_from("ab:{}[]&*!|>-'\"#%@\n\t ,?0123.eE+~<=\\x"), max_size=40))
@settings(max_examples=500)
def test_any_text(text: str) -> None:
    try:
        raw = read_document(text, "m.yaml")
    except UserError:
        return
    assert accepted(raw) is None


TAGS = st.sampled_from(["", "", "", "!!bool ", "!!int ", "!!float ", "!!null ", "!!str ", "!!map ", "!!seq ", "!!timestamp ", "!!set ",
    "!!omap ", "!!binary ", "!x ", "&a ", "&b ", "<<: ", "? "])  # fmt: skip
WORDS = st.sampled_from(
    ["*a", "*b", "x", "1", "1e9", "0x", "~", "2026-01-01", "'q'", "<<", "-", "[]", "{}", "|", "9" * 5000, "\u2028"]
)
STRUCTURED = st.recursive(
    st.tuples(TAGS, WORDS).map("".join),
    lambda inner: st.one_of(
        st.tuples(TAGS, st.lists(inner, max_size=4)).map(lambda made: f"{made[0]}[{', '.join(made[1])}]"),
        st.tuples(TAGS, st.lists(st.tuples(inner, inner), max_size=4)).map(
            lambda made: f"{made[0]}{{{', '.join(f'{key} : {value}' for key, value in made[1])}}}"
        ),
        st.lists(st.tuples(st.sampled_from(["k", "<<", "&a k", "*a "]), inner), min_size=1, max_size=4).map(
            lambda made: "\n".join(f"{key}: {value}" for key, value in made)
        ),
    ),
    max_leaves=12,
)


@given(STRUCTURED)
@settings(max_examples=300)
def test_any_structure_of_tags_anchors_and_merges(text: str) -> None:
    try:
        raw = read_document(text, "m.yaml")
    except UserError as error:
        words = str(error)
    else:
        words = ""
        assert accepted(raw) is None
    assert len(words) < 1000


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_any_bytes(content: bytes) -> None:
    with NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        with pytest.raises(UserError) as refused:
            load_manifest(file.name)
        assert len(str(refused.value)) < 2000


def test_19_000_unknown_fields_are_counted_and_the_first_are_named() -> None:
    raw = document() | {"spec": SPEC | {f"unknown{number}": number for number in range(19_000)}}
    with pytest.raises(ManifestError) as refused:
        parse_manifest(raw, "m.yaml")
    words = str(refused.value)
    assert words.startswith("m.yaml: 19,000 problems\n  spec.unknown0: unknown field")
    assert words.count("unknown field") == 20
    assert words.endswith("and 18,980 more; correct these first")
    assert len(words) < 20_000


@pytest.mark.parametrize("name", ["k" * 500_000, "\x1b[31m" * 50_000, "\u202e" * 50_000])
def test_one_endless_name_is_shortened(name: str) -> None:
    for raw in (document() | {"spec": SPEC | {name: 1}}, document() | {name: {}}, document({"seed": name})):
        with pytest.raises(ManifestError) as refused:
            parse_manifest(raw, "m.yaml")
        assert len(str(refused.value)) < 3000
        assert str(refused.value).replace("\n", "").isprintable()


def test_the_generator_makes_both_kinds() -> None:
    """Guards the tests above against refusing, or accepting, everything."""
    seen = {accepted(document()) is None, accepted(document({"seed": -1})) is None}
    assert seen == {True, False}
