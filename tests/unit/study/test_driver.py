"""The folder of a study: results count only for the very job and mode that made them."""

import sys
from pathlib import Path

import msgspec
import pytest
from tests.unit.study.builders import job, result

from asyncppo.errors import UserError
from asyncppo.study import driver
from asyncppo.study.cells import parse_strategies, plan
from asyncppo.study.driver import CellFailedError, Mode, Study, complete, prepare
from asyncppo.study.results import encode_result


def study(folder: Path, mode: Mode = Mode.VIRTUAL) -> Study:
    return Study(folder, plan(job(), parse_strategies("Interruption,EWMA"), 1, None, "m"), mode)


def test_a_finished_cell_is_not_missing(tmp_path: Path) -> None:
    made = study(tmp_path)
    prepare(made)
    first, second = made.cells
    content = msgspec.structs.replace(result("Interruption", 0, 0.5), fingerprint=first.fingerprint)
    made.result_file(first).write_bytes(encode_result(content))
    assert made.missing() == [second]
    assert made.results() == [content]
    with pytest.raises(UserError, match="in another mode"):
        study(tmp_path, Mode.WALL).missing()


@pytest.mark.parametrize(
    ("content", "words"), [(b"{", "is not a result"), (encode_result(result("EWMA", 0, 0.5)), "another manifest")]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    made = study(tmp_path)
    prepare(made)
    made.result_file(made.cells[0]).write_bytes(content)
    with pytest.raises(UserError, match=words):
        made.missing()


def test_a_failed_run_says_why_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.setattr(driver, "RUN", (sys.executable, "-m", "tests.unit.study.fake_run"))
    monkeypatch.setattr(driver, "TRAINER", (sys.executable, "-c", 'print(\'{"type":"pace","seconds":2.0}\')'))
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root}/images/shared")
    made = study(tmp_path, Mode.WALL)
    prepare(made)
    budgets: list[float] = []
    with pytest.raises(CellFailedError, match="ran out of memory"):
        complete(made, budgets.append, lambda name: None)
    assert [cell.contender.label for cell in made.missing()] == ["EWMA"]
    complete(made, budgets.append, lambda name: None)
    assert budgets == [2 * 4 * 2.0 + 2 * driver.START_SECONDS, 4 * 2.0 + driver.START_SECONDS]
    exact, ewma = made.results()
    assert (tmp_path / "runs" / made.cells[0].name / "calls").read_text() == "\n"
    assert (tmp_path / "runs" / made.cells[1].name / "calls").read_text() == "\n--resume\n"
    assert (exact.reward, exact.tokens, exact.coverage, exact.cost.stall) == (0.5, 40, 0.75, 2.0)
    assert exact.errors is None, "nothing was audited"
    assert ewma.errors is not None
    assert (ewma.errors.false_mask, ewma.errors.anchor) == (0.25, 0.5)
    assert exact.cost.bytes_held is None
