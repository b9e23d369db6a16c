"""`asyncppo show` prints what environments and models said faithfully, and none of it does anything to the terminal."""

import json
from pathlib import Path

import pytest
from tests.cases.drive import Outcome, asyncppo, run_case

pytestmark = pytest.mark.cases


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run whose environment speaks in markup and escape sequences."""
    outcome = run_case("markup", tmp_path_factory.mktemp("markup") / "run")
    assert outcome.code == 0, outcome.output
    return outcome


def test_a_trajectory_is_shown_from_any_folder_and_does_nothing_to_the_terminal(run: Outcome, tmp_path: Path) -> None:
    shown = asyncppo("show", str(run.folder), "--trajectory", "1", folder=run.folder, cwd=tmp_path, COLUMNS="400")
    assert shown.code == 0, shown.output
    text = next(line for line in shown.output.splitlines() if line.startswith("text  "))
    assert text.startswith(
        "text  <bos> [/red] [bold]x[/bold] [link=http://x] \\x1b[31mred\\x1b[0m \\u202eabc zero\\u200bwidth Straße "
    )
    assert not set(shown.output) & set("\x1b\u202e\u200b")
    told = json.loads(
        asyncppo("show", str(run.folder), "--trajectory", "1", "--json", folder=run.folder, cwd=tmp_path).output
    )
    assert "".join(part["text"] for part in told["runs"]) == told["text"]
    assert "\x1b[31mred" in told["text"]  # what travels as JSON is what was said


def test_a_terminal_that_lacks_characters_and_room_gets_escapes_and_whole_figures(run: Outcome, tmp_path: Path) -> None:
    for encoding, more in (("latin-1", ()), ("ascii", ("--trajectory", "1"))):
        shown = asyncppo(
            *("show", str(run.folder), *more),
            folder=run.folder,
            cwd=tmp_path,
            PYTHONIOENCODING=f"{encoding}:strict",
            COLUMNS="30",
        )
        assert shown.code == 0, shown.output
        assert "Traceback" not in shown.output
        assert "…" not in shown.output
