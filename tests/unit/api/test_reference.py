"""The reference page: in step with the models, and complete. And the maker of files that are made from code."""

import sys
from pathlib import Path

import pytest
from tests.unit.api.builders import fields, leaves

from asyncppo.api import generated
from asyncppo.api.changes import CHANGEABLE
from asyncppo.api.generated import drift, generated_file_main
from asyncppo.api.reference import PATH, page
from asyncppo.api.rules import RULES
from asyncppo.api.schema import spec_schema, structural
from asyncppo.api.status import JobStatus


def test_the_page_is_what_the_models_make() -> None:
    assert drift(PATH, page) is None


def test_every_field_and_rule_is_on_the_page() -> None:
    text = page()
    assert [path for path, _ in leaves(spec_schema()) if f"| `spec.{path}` |" not in text] == []
    assert [
        node["description"] for _, node in leaves(spec_schema()) if node["description"].replace("|", "\\|") not in text
    ] == []
    assert [rule.name for rule in RULES if rule.remedy.replace("|", "\\|") not in text] == []
    assert [path for path in CHANGEABLE if f"- `spec.{path}`" not in text] == []
    status = [path for path, _ in fields(structural(JobStatus)) if not path.startswith("conditions.")]
    assert [path for path in status if f"| `status.{path}` |" not in text] == []


def test_tables_have_the_same_number_of_cells_in_each_row() -> None:
    table: list[int] = []
    for line in page().splitlines():
        cells = line.replace("\\|", "").count("|")
        if cells:
            table.append(cells)
            assert cells == table[0], line
        else:
            table = []


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generated, "repository_root", lambda: tmp_path)
    return tmp_path


def _run(monkeypatch: pytest.MonkeyPatch, flag: str, text: str) -> object:
    monkeypatch.setattr(sys, "argv", ["maker", flag])
    with pytest.raises(SystemExit) as ended:
        generated_file_main("some/page.md", lambda: text)
    return ended.value.code


def test_write_then_check_then_drift(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--check", "one") == 1
    assert "is missing" in capsys.readouterr().err
    assert _run(monkeypatch, "--write", "one") == 0
    assert (checkout / "some/page.md").read_text(encoding="utf-8") == "one"
    assert _run(monkeypatch, "--check", "one") == 0
    assert _run(monkeypatch, "--check", "two") == 1
    assert "--write" in capsys.readouterr().err
