"""The tables of docs/version-sync.md are those the code gives."""

from pathlib import Path

import pytest

from asyncppo.sync.table import BEGIN, END, main, with_tables

PAGE = Path(__file__).parents[3] / "docs" / "version-sync.md"


def test_the_page_says_what_the_code_does() -> None:
    assert main(["--check", str(PAGE)]) == 0, "run: python -m asyncppo.sync.table --write"


def test_a_drifted_page_is_found_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text().replace("| Flush | each member |", "| Flush | nobody |", 1))
    assert main(["--check", str(page)]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["--write", str(page)]) == 0
    assert page.read_text() == PAGE.read_text()


def test_a_page_without_a_place_for_them_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        with_tables("# a page\n")
    assert with_tables(f"a\n{BEGIN}\n{END}\nb").endswith("\nb")
