"""Every query of the committed dashboards, as Grafana would send it.

Owns the walk and the filling in of variables. A new panel is tested without being named here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "charts" / "asyncppo" / "files" / "dashboards"
RATE_INTERVAL = "30s"


def queries(namespace: str, job: str) -> Iterator[tuple[str, str]]:
    """(dashboard / panel, expression) of every target, but of panels that say themselves when they are rightly empty."""
    for file in sorted(FOLDER.glob("*.json")):
        content = json.loads(file.read_text())
        for panel in content["panels"]:
            if "noValue" in panel.get("fieldConfig", {}).get("defaults", {}):
                continue
            for target in panel.get("targets", []):
                yield f"{file.stem} / {panel['title']}", filled(target["expr"], namespace, job)


def variables(namespace: str) -> Iterator[tuple[str, str]]:
    """(variable, the series its values come from)."""
    for file in sorted(FOLDER.glob("*.json")):
        content: dict[str, Any] = json.loads(file.read_text())
        for variable in content["templating"]["list"]:
            if variable["type"] == "query":
                inner = variable["definition"].removeprefix("label_values(").rpartition(",")[0]
                yield variable["name"], filled(inner, namespace, "")


def filled(expression: str, namespace: str, job: str) -> str:
    """The expression with Grafana's variables replaced."""
    return expression.replace("$__rate_interval", RATE_INTERVAL).replace("$namespace", namespace).replace("$job", job)
