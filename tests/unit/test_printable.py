"""Text of others on a terminal: shown as it is where it can be shown, escaped where it would do something."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncppo.printable import printable, tolerate


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain [bold] text", "plain [bold] text"),
        ("Straße, 漢字, 🙂", "Straße, 漢字, 🙂"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\x07\x08\r\tb\x7f", r"a\x07\x08\r\tb\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eabc\u2066\u200f", r"\u202eabc\u2066\u200f"),
        ("a\u200bb\ufeff\u2060", r"a\u200bb\ufeff\u2060"),
        ("a\u2028b\x85", r"a\u2028b\x85"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_what_would_do_something_is_escaped(text: str, said: str) -> None:
    assert printable(text) == said


def test_a_line_stays_a_line() -> None:
    assert printable("two\nlines", lines=False) == r"two\nlines"


@given(st.text(st.characters(codec=None)))
def test_nothing_invisible_is_left(text: str) -> None:
    said = printable(text, lines=False)
    assert said.isprintable()
    assert not any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in said)
    assert printable(said, lines=False) == said


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_takes_what_its_encoding_lacks(encoding: str) -> None:
    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding=encoding, errors="strict")
    tolerate(stream, io.StringIO())
    stream.write("✓ 漢")
    stream.flush()
    assert file.getvalue() == rb"\u2713 \u6f22"
