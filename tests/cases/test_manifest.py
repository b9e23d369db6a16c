"""Manifests that would crash or hang a YAML parser: `asyncppo validate` says in a few words what is wrong and where."""

from pathlib import Path

import pytest
from tests.cases.drive import asyncppo

pytestmark = pytest.mark.cases

MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [*{old}, *{old}, *{old}], k{new}: *{old}}}\n"
    for old, new in zip("abcdefghijklmnopqrstuv", "bcdefghijklmnopqrstuvw", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MERGES, "more than 20,000 values"),
        ("kind: !!bool abc\nspec: {}\n", 'line 1, column 7: "abc" is no bool'),
        ("kind: AsyncPPOJob\nspec:\n" + "".join(f"  f{n}: 1\n" for n in range(8000)), "more; correct these first"),
    ],
    ids=["nested merges", "wrong tags", "8,000 unknown fields"],
)
def test_validate_refuses_it_in_a_few_words(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    outcome = asyncppo("validate", "job.yaml", folder=tmp_path, cwd=tmp_path, limit_seconds=120)
    assert outcome.code == 2, outcome.output
    assert words in outcome.output
    assert "Traceback" not in outcome.output
    assert len(outcome.output) < 20_000
