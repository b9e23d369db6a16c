"""The dashboards as people see them: `make test-dashboards`. What is needed: README.md beside this file."""

import re
import struct
from typing import Any

import pytest
from tests.dashboards import recording
from tests.dashboards.pictures import Picture, take

MOMENTS = ("complete", "failed", "running")
pytestmark = pytest.mark.dashboards


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """All of them, drawn once."""
    moments, series = recording.read()
    assert sorted(moments) == sorted(MOMENTS)
    return take(tmp_path_factory.mktemp("pictures"), moments, series)


def panel(pictures: list[Picture], moment: str, title: str, dashboard: str = "job") -> dict[str, Any]:
    """One panel of one picture."""
    (picture,) = [one for one in pictures if (one.dashboard, one.moment) == (dashboard, moment)]
    return picture.shown[title]


def is_green(color: str) -> bool:
    """Whether green is the strongest part of a colour, `#rrggbb` or `rgb(r, g, b)`, by far."""
    if color.startswith("#"):
        red, green, blue = struct.unpack("BBB", bytes.fromhex(color[1:7]))
    else:
        red, green, blue = (int(part) for part in re.findall(r"\d+", color)[:3])
    return green > 1.3 * max(red, blue)


def is_red(color: str) -> bool:
    """The same for red."""
    red, green, blue = struct.unpack("BBB", bytes.fromhex(color[1:7]))
    return red > 1.5 * max(green, blue)


def test_every_picture_is_drawn_without_an_error(pictures: list[Picture]) -> None:
    assert {(one.dashboard, one.moment) for one in pictures} == {
        (dashboard, moment) for dashboard in ("job", "operator") for moment in MOMENTS
    }
    for picture in pictures:
        assert picture.errors == [], picture.file.name
        assert picture.file.stat().st_size > 50_000, "a picture of a page that is empty is small"


def test_no_panel_is_empty(pictures: list[Picture]) -> None:
    """One that may be says why, and has data in one picture at least."""
    empty = {
        (p.dashboard, p.moment, title) for p in pictures for title, shown in p.shown.items() if not shown["points"]
    }
    unexplained = {
        (dashboard, moment, title)
        for dashboard, moment, title in empty
        if not panel(pictures, moment, title, dashboard)["noValue"]
    }
    assert unexplained == set()
    titles = {(p.dashboard, title) for p in pictures for title in p.shown}
    never = {
        (dashboard, title)
        for dashboard, title in titles
        if all((dashboard, moment, title) in empty for moment in MOMENTS)
    }
    assert never == set()


@pytest.mark.parametrize(("moment", "phase"), [("complete", "Complete"), ("failed", "Failed"), ("running", "Running")])
def test_the_phase_is_there_to_read(pictures: list[Picture], moment: str, phase: str) -> None:
    (value,) = panel(pictures, moment, "Phase")["values"]
    assert value["title"] == phase
    assert is_red(value["color"]) == (phase == "Failed")
    assert is_green(value["color"]) == (phase != "Failed")


def test_a_failed_job_looks_failed(pictures: list[Picture]) -> None:
    conditions = {value["title"]: value for value in panel(pictures, "failed", "Conditions")["values"]}
    assert conditions["Failed"]["text"] == "True"
    assert is_red(conditions["Failed"]["color"])
    assert not is_green(conditions["Complete"]["color"])
    assert not is_green(conditions["LearnerReady"]["color"]), "a failed job has no learner"


def test_only_what_is_well_is_green(pictures: list[Picture]) -> None:
    for moment in MOMENTS:
        for value in panel(pictures, moment, "Conditions")["values"]:
            assert not is_green(value["color"]) or value["text"] == "True", (moment, value)
        for value in panel(pictures, moment, "Policy version")["values"]:
            assert not is_red(value["color"]), "a version is neither good nor bad"
            assert not is_green(value["color"])


def test_the_version_of_the_operator_is_there_to_read(pictures: list[Picture]) -> None:
    (value,) = panel(pictures, "running", "Version", "operator")["values"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", value["title"])
