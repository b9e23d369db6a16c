"""report.png: it is made for every kind of run, and shows what the figures say. How it looks is judged by eye."""

import struct
from pathlib import Path

import pytest
from tests.unit.local.builders import job, status
from tests.unit.report.builders import recorded, summary, update

from asyncppo.api.job import AsyncPPOJob
from asyncppo.local.ending import ResultsError, reference, write_results
from asyncppo.local.folder import RunFolder, finished_phase
from asyncppo.local.outcome import Outcome
from asyncppo.report.measures import Discrepancy, Staleness, Summary
from asyncppo.report.picture import Reference, draw


def size(png: bytes) -> tuple[int, int]:
    """Width and height out of a PNG's header."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)


@pytest.mark.parametrize(
    ("figures", "updates"),
    [
        (summary(), 60),
        (summary(), 1),
        (summary(updates=0, staleness=Staleness(), discrepancy=Discrepancy(), time={}), 0),
        (summary(staleness=Staleness(mean=9.5, max=40, histogram={n: n + 1 for n in range(41)})), 1000),
        (summary(discrepancy=Discrepancy(by_staleness={0: (10, 0.0)})), 3),
        (summary(discrepancy=Discrepancy(slope=0.02, max_abs=1.5, by_staleness={0: (10, 0.1), 4: (3, 0.2)})), 3),
        (summary(time={f"rollout-{n}": {f"activity {k}": 1.0 for k in range(9)} for n in range(16)}), 3),
    ],
    ids=["whole", "one update", "nothing", "very stale", "no discrepancy", "large discrepancy", "many roles"],
)
def test_every_kind_of_run_has_a_picture(figures: Summary, updates: int) -> None:
    png = draw(figures, [update(n, n / 60) for n in range(1, updates + 1)], Reference("perfect play", 0.763))
    assert size(png) == (1440, 984)


def test_results_are_written_from_a_recorded_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    recorded(folder.metrics_file, [update(n) for n in range(1, 21)])
    told = write_results(job(), folder, Outcome("Complete", "", status(), {"rollout-0": {"sampling": 1.0}}, {}))
    assert told.updates == 120
    assert size(folder.picture_file.read_bytes()) == (1440, 984)
    assert b'"phase": "Complete"' in folder.summary_file.read_bytes()


def test_a_disk_that_takes_no_results_is_told_and_the_run_counts_as_unfinished(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    recorded(folder.metrics_file, [update(1)])
    folder.picture_file.mkdir()  # a file that cannot be put in place
    with pytest.raises(ResultsError, match=r"could not be written .*The job is complete"):
        write_results(job(), folder, Outcome("Complete", "trained", status(), {}, {}))
    assert finished_phase(folder) == ""


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("perfect play 0.763", Reference("perfect play", 0.763)),
        ("0.5", Reference("reference", 0.5)),
        ("perfect play", None),
        (None, None),
    ],
)
def test_the_reference_comes_from_an_annotation(annotation: str | None, expected: Reference | None) -> None:
    made: AsyncPPOJob = job(annotations={"asyncppo.io/reward-reference": annotation} if annotation else None)
    assert reference(made) == expected
