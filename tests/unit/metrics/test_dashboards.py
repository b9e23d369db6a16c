"""What the dashboards' files say. How they look is judged by tests/dashboards."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from asyncppo.metrics import document
from asyncppo.metrics.dashboards.job import CONDITIONS
from asyncppo_operator.conditions import Kind

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "charts" / "asyncppo" / "files" / "dashboards").glob("*.json"))
RULES = ROOT / "charts" / "asyncppo" / "files" / "rules.yaml"
# On no panel and in no alert, and why.
NOT_SHOWN: dict[str, str] = {}


def panels(file: Path) -> list[dict[str, Any]]:
    """All but the rows' headings."""
    return [panel for panel in json.loads(file.read_text())["panels"] if panel["type"] != "row"]


def test_every_metric_is_on_a_panel_in_an_alert_or_on_the_list_of_exceptions() -> None:
    text = "\n".join(file.read_text() for file in [*FILES, RULES])
    metrics = [metric.name for _, _, metrics in document.PARTS for metric in metrics]
    missing = {name for name in metrics if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", text)}
    assert missing == set(NOT_SHOWN)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_titles_are_unique(file: Path) -> None:
    titles = [panel["title"] for panel in panels(file)]
    assert sorted(titles) == sorted(set(titles))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_value_has_grafanas_default_thresholds(file: Path) -> None:
    """Green below 80 and red above means nothing for a version or a count."""
    for panel in panels(file):
        if panel["type"] in ("stat", "bargauge", "gauge"):
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]


def test_every_condition_has_its_colours() -> None:
    assert {kind.value for kind in Kind} <= set(CONDITIONS)
