"""The part of the fault matrix that fits CI, with the real programs: every role hit in every phase."""

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet, Verdict
from tests.faults.matrix import AT_ONCE, ci_part

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, "Future[Verdict]"]]:
    """All cases, running beside each other."""
    folder: Path = tmp_path_factory.mktemp("faults")
    with Fleet(folder, AT_ONCE) as fleet:
        yield {case.name: fleet.submit(case) for case in ci_part()}


@pytest.mark.parametrize("name", [case.name for case in ci_part()])
def test_nothing_is_lost(verdicts: dict[str, "Future[Verdict]"], name: str) -> None:
    verdict = verdicts[name].result()
    assert not verdict.problems, verdict
