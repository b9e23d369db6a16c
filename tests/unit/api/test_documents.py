"""The text of manifests: YAML as kubectl reads it, duplicates and bombs refused, errors with their place."""

import time
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
        ("a: !!python/object:os.system x", "only plain values, lists and objects are allowed"),
        ("a: \x00", "line 1, column 4: a character that YAML does not allow"),
        ("a: *nobody", "undefined alias"),
        ("? [a]\n: 1", "line 1"),
        ("a: &x\n  b: *x", "stands for something that holds it"),
        ("a: " + "9" * 5000, "integer of 5000"),
        ("a: " + "[" * 1500, "nested more than 64 deep"),
        ('{"a": ' + "[" * 20_000, "nested more than 64 deep"),
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
    with pytest.raises(UserError, match="line 5, column 5: more than 20,000 values"):
        read_document("\n".join(lines), "m")
    assert "more than 20,000 values" in unplain([["x"] * 1000] * 1000)[-1].what  # an object from the API server


def test_a_document_that_contains_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    problems = unplain(endless)
    assert "nests too deeply" in problems[-1].what


def test_plain_data_is_plain() -> None:
    assert unplain({"a": [1, 2.5, None, True, "x", {"b": {}}]}) == []


BOMB = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [*{chr(97 + i)}, *{chr(97 + i)}, *{chr(97 + i)}], k{i}: *{chr(97 + i)}}}\n"
    for i in range(24)
)
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!bool abc", 'line 1, column 4: "abc" is no bool'),
        ("a: !!int x", 'line 1, column 4: "x" is no int'),
        ("a: !!float ''", 'line 1, column 4: "" is no float'),
        ("a: !!int ''", 'line 1, column 4: "" is no int'),
        ("a: !!timestamp x", "line 1, column 4: has the type tag:yaml.org,2002:timestamp; only plain values"),
        ("a: !!timestamp 2026-01-01", "only plain values"),
        ("a: !!binary eA==", "only plain values"),
        ("a: !!set {b}", "only plain values"),
        ("a: !!omap [b: 1]", "only plain values"),
        ("a: !mine b", "only plain values"),
        ("a: !!map b", "line 1, column 4"),
        ("a: !!seq b", "line 1, column 4"),
        ("a: !!str [b]", "line 1, column 4"),
        ("a: !!null [b]", "line 1, column 4"),
        ("a: {<<: 1}", "line 1"),
        ("a: &a [*a]", "line 1, column 8: the alias *a stands for something that holds it"),
        ("a: &a {<<: *a}", "stands for something that holds it"),
        ("&a {? *a : 1}", "stands for something that holds it"),
        (BOMB, "more than 20,000 values"),
        (LAUGHS, "more than 20,000 values"),
        ("a: " + "[" * 200_000, "line 1, column 67: nested more than 64 deep"),
        ("- " * 100_000, "nested more than 64 deep"),
        ("a: " + "{b: " * 200_000, "nested more than 64 deep"),
        ('{"a": ' + "[" * 200_000, "nested more than 64 deep"),
        ("- a\n" * 200_000, "more than 20,000 values"),
        ("---\n" * 200_000, "more than 20,000 values"),
        ("a: " + "9" * 5000, "an integer of 5000 characters"),
        ("a: 0x" + "f" * 5000, "an integer of 5002 characters"),
        ('{"a": ' + "9" * 5000 + "}", "an integer of 5000 characters"),
        ("a: *" + "x" * 100_000, "undefined alias"),
        ("k" * 1000 + ": 1\n" + "k" * 1000 + ": 1", "stands twice"),
        ("a: b\n  c\x07: d", "line 2, column 4: a character that YAML does not allow"),
    ],
)
def test_what_would_crash_or_hang_a_parser_is_refused_with_its_place_in_a_few_words(text: str, message: str) -> None:
    started = time.process_time()
    with pytest.raises(UserError) as refused:
        read_document(text, "m")
    assert message in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert time.process_time() - started < 30  # 20,000 values take a seconds on a slow machine; a bomb takes minutes


@pytest.mark.parametrize(
    "text", ["1" * 200_000 + "x", "1" * 200_000 + ".", "0" * 200_000 + "8x", "+" * 200_000, "1e" * 100_000]
)
def test_a_long_word_that_begins_like_a_number_takes_no_longer_than_any(text: str) -> None:
    started = time.process_time()
    read_document(f"a: '{text}'", "m")
    assert isinstance(read_document(f"a: {text}", "m")["a"], str | float)
    assert time.process_time() - started < 10


def test_an_alias_may_be_used_as_often_as_it_is_worth() -> None:
    read = read_document("a: &a [1, 2]\nb: [" + ", ".join(["*a"] * 1000) + "]", "m")
    assert len(read["b"]) == 1000
