"""The folder of a study: results count only for the very job and mode that made them."""

from pathlib import Path

import msgspec
import pytest
from tests.unit.study.builders import job, result

from asyncppo.errors import UserError
from asyncppo.study.cells import parse_strategies, plan
from asyncppo.study.driver import Mode, Study, prepare
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
