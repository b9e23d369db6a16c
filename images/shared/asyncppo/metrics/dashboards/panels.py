"""Panels, rows and a dashboard in Grafana's JSON model (schema 39, Grafana 10 and later).

Owns the shape and the layout: panels flow from left to right in a grid of 24. Does not own what is shown (`job.py`, `operator.py`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncppo.metrics.metric import Kind, Metric

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
NOW = ("stat", "bargauge")
"""Kinds of panels that show the present alone."""
NO_COLOR: tuple[tuple[float | None, str], ...] = ((None, "text"),)
SCHEMA_VERSION = 39


@dataclass(frozen=True)
class Query:
    """One PromQL expression and how its series are called."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """kind: stat, timeseries, bargauge or heatmap. unit: Grafana's name of it. mappings: value → text.

    thresholds: from which value on which colour; a value without them has no colour, for Grafana's own default paints it red
    from 80 on. overrides: for the series of one name, what differs. shows: of a stat, its value, its name or both.
    absent: what stands in the panel where there is no series, when that is as it should be.
    """

    title: str
    queries: tuple[Query, ...]
    description: str = ""
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    minimum: float | None = None
    maximum: float | None = None
    stacked: bool = False
    mappings: dict[str, str] = field(default_factory=dict)
    thresholds: tuple[tuple[float | None, str], ...] = ()
    decimals: int | None = None
    overrides: Mapping[str, "Look"] = field(default_factory=dict)
    shows: str = "auto"
    absent: str = ""


@dataclass(frozen=True)
class Look:
    """How the values of one series look: one colour, or a colour and a text for each value."""

    color: str = ""
    values: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Panel]


def series(metric: Metric, selector: str = "", suffix: str = "") -> str:
    """A selector of a metric's series; `suffix` picks a histogram's: bucket, sum or count. ValueError for one that does not fit."""
    if (metric.kind is Kind.HISTOGRAM) != bool(suffix):
        raise ValueError(f"{metric.name} is a {metric.kind}")
    name = f"{metric.name}_{suffix}" if suffix else metric.name
    return f"{name}{{{selector}}}" if selector else name


def or_zero(expression: str) -> str:
    """0 where there is nothing yet: an empty panel would look like a fault."""
    return f"({expression}) or on () vector(0)"


def quantile(share: float, metric: Metric, selector: str, window: str, by: str = "") -> str:
    """A quantile of a histogram over a window."""
    labels = f"le, {by}" if by else "le"
    rate = f"sum by ({labels}) (rate({series(metric, selector, 'bucket')}[{window}]))"
    return f"histogram_quantile({share:g}, {rate})"


def mean(metric: Metric, selector: str, window: str) -> str:
    """The mean of what a histogram observed over a window."""
    total, count = (series(metric, selector, part) for part in ("sum", "count"))
    return f"sum(rate({total}[{window}])) / sum(rate({count}[{window}]))"


def variable(name: str, label: str, query: str) -> Json:
    """A choice filled by a query."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "includeAll": False,
        "multi": False,
    }


def dashboard(uid: str, title: str, description: str, variables: list[Json], rows: Sequence[Row]) -> str:
    """The whole file."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    made = {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["asyncppo"],
        "editable": True,
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": [source, *variables]},
        "annotations": {"list": []},
        "panels": _laid_out(rows),
    }
    return json.dumps(made, indent=2) + "\n"


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    made: list[Json] = []
    top = 0
    for row in rows:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
            }
        )
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, tallest = top + tallest, 0, 0
            position = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            made.append(_panel(panel, len(made) + 1, position))
            left, tallest = left + panel.width, max(tallest, panel.height)
        top += tallest
    return made


def _panel(panel: Panel, number: int, position: Json) -> Json:
    defaults: Json = {"unit": panel.unit, "custom": _custom(panel)}
    for key, value in (("min", panel.minimum), ("max", panel.maximum), ("decimals", panel.decimals)):
        if value is not None:
            defaults[key] = value
    if panel.mappings:
        options = {value: {"text": text, "index": i} for i, (value, text) in enumerate(panel.mappings.items())}
        defaults["mappings"] = [{"type": "value", "options": options}]
    if panel.thresholds or panel.kind in ("stat", "bargauge"):
        steps = [{"value": value, "color": color} for value, color in panel.thresholds or NO_COLOR]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        defaults["color"] = {"mode": "thresholds"}
    if panel.absent:
        defaults["noValue"] = panel.absent
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query.expression,
            "legendFormat": query.legend or "__auto",
            "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            # a value is what is so now: over a range a phase that the job was in an hour ago would stand beside today's
            "instant": panel.kind in NOW,
            "range": panel.kind not in NOW,
        }
        for index, query in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": position,
        "fieldConfig": {
            "defaults": defaults,
            "overrides": [_override(name, look) for name, look in panel.overrides.items()],
        },
        "options": _options(panel),
        "targets": targets,
    }


def _override(name: str, look: Look) -> Json:
    properties: list[Json] = []
    if look.color:
        properties.append({"id": "color", "value": {"mode": "fixed", "fixedColor": look.color}})
    if look.values:
        options = {
            value: {"text": text, "color": color, "index": index}
            for index, (value, (text, color)) in enumerate(look.values.items())
        }
        properties.append({"id": "mappings", "value": [{"type": "value", "options": options}]})
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


def _custom(panel: Panel) -> Json:
    if panel.kind != "timeseries":
        return {}
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    return {"lineWidth": 1, "fillOpacity": 30 if panel.stacked else 5, "showPoints": "never", "stacking": stacking}


def _options(panel: Panel) -> Json:
    last: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        return {"reduceOptions": last, "colorMode": "value", "graphMode": "none", "textMode": panel.shows}
    if panel.kind == "bargauge":
        return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "gradient"}
    if panel.kind == "heatmap":
        return {"calculate": False, "color": {"mode": "scheme", "scheme": "Oranges"}, "yAxis": {"unit": panel.unit}}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
