"""The text of manifests: YAML as kubectl reads it, duplicates and bombs refused, errors with their place."""

from typing import Any

import pytest

from asyncppo.api.documents import read_document, unplain
from asyncppo.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("1.5e+3", 1500.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-12", -12),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("0", 0),
        ("0b101", 5),
        ("-010", -8),
        ("089", 89.0),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("None", "None"),
        ("1_000", "1_000"),
        ("10Gi", "10Gi"),
        ('"1"', "1"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    read = read_document(f"a: {text}", "m")["a"]
    assert read == value
    assert type(read) is type(value)


def test_anchors_and_merges_work() -> None:
    assert read_document("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: *x", "m") == {
        "a": {"b": 1},
        "c": {"b": 1, "d": 2},
        "e": {"b": 1},
    }


def test_a_merged_key_may_be_overridden() -> None:
    assert read_document("a: &x {b: 1}\nc:\n  <<: *x\n  b: 2", "m")["c"] == {"b": 2}


def test_json_is_read_as_json() -> None:
    assert read_document(' {"a": "\\ud83d\\ude42", "b": [1e-7, null]}', "m") == {"a": "🙂", "b": [1e-7, None]}


def test_a_yaml_flow_mapping_is_read_too() -> None:
    assert read_document("{a: 1, b: [x]} # note", "m") == {"a": 1, "b": ["x"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", 'line 3, column 1: the key "a" stands twice'),
        ('{"a": {"b": 1, "b": 2}}', 'the key "b" stands twice'),
        ("a: 1\n---\nb: 2", "holds 2 documents; allowed: one AsyncPPOJob"),
        ("", "is empty"),
        ("---\n---\n", "is empty"),
        ("a: [1", "line 1, column 6"),
        ("a: 'x", "line 1"),
        ("a:\n\t- b", "line 2, column 1"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x00", "special characters are not allowed"),
        ("a: *nobody", "undefined alias"),
        ("? [a]\n: 1", "line 1"),
        ("a: &x\n  b: *x", "recursive"),
        ("a: " + "9" * 5000, "digits"),
        ("a: " + "[" * 1500, "nested too deeply"),
        ('{"a": ' + "[" * 20_000, "nested too deeply"),
    ],
)
def test_text_that_is_no_document(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_document(text, "m.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("m.yaml: 1 problem")


def test_a_stream_with_an_empty_second_document_is_one() -> None:
    assert read_document("a: 1\n---\n", "m") == {"a": 1}


def test_an_alias_bomb_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    problems = unplain(read_document("\n".join(lines), "m"))
    assert "more than 100000 values" in problems[-1].what


def test_a_document_that_contains_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    problems = unplain(endless)
    assert "nests too deeply" in problems[-1].what


def test_plain_data_is_plain() -> None:
    assert unplain({"a": [1, 2.5, None, True, "x", {"b": {}}]}) == []
