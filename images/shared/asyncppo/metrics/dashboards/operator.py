"""The dashboard *Operator*: does it work, how fast, and what keeps it from working.

Owns what is shown. `python -m asyncppo.metrics.dashboards.operator --write|--check` makes the chart's file.
"""

from asyncppo.api.generated import generated_file_main
from asyncppo.metrics import operator
from asyncppo.metrics.dashboards.panels import Panel, Query, Row, dashboard, or_zero, quantile, series

PATH = "charts/asyncppo/files/dashboards/operator.json"
WINDOW = "$__rate_interval"
NONE_OR_BAD = ((None, "green"), (1.0, "red"))
GOOD_OR_BAD = ((None, "red"), (1.0, "green"))

HEALTH = Row(
    "Does it work?",
    [
        Panel(
            "Active replicas",
            (Query(f"sum({series(operator.LEADER)})"),),
            kind="stat",
            width=4,
            height=4,
            thresholds=GOOD_OR_BAD,
        ),
        Panel(
            "API server",
            (Query(f"min({series(operator.API_REACHABLE)})"),),
            kind="stat",
            width=4,
            height=4,
            mappings={"0": "silent", "1": "answers"},
            thresholds=GOOD_OR_BAD,
        ),
        Panel(
            "Missing rights",
            (Query(or_zero(f"sum({series(operator.MISSING_RIGHTS)})")),),
            kind="stat",
            width=4,
            height=4,
            thresholds=NONE_OR_BAD,
        ),
        Panel(
            "Version",
            (Query(series(operator.BUILD_INFO), "{{version}}"),),
            kind="stat",
            width=4,
            height=4,
            shows="name",
        ),
        Panel("Jobs", (Query(f"sum({series(operator.JOBS)})"),), kind="stat", width=4, height=4),
        Panel(
            "Syncs",
            (Query(or_zero(f"sum(rate({series(operator.SYNCS)}[{WINDOW}]))")),),
            kind="stat",
            unit="ops",
            width=4,
            height=4,
        ),
        Panel("Jobs by phase", (Query(f"sum by (phase) ({series(operator.JOBS)})", "{{phase}}"),), stacked=True),
        Panel(
            "Jobs whose conditions are False",
            (Query(or_zero(f"sum by (condition) ({series(operator.JOB_CONDITION)} == bool 0)"), "{{condition}}"),),
        ),
        Panel(
            "Silent learners",
            (Query(or_zero(f"max by (asyncppo_job) ({series(operator.JOB_STATUS_AGE)})"), "{{asyncppo_job}}"),),
            unit="s",
        ),
    ],
)

RECONCILES = Row(
    "How fast?",
    [
        Panel(
            "Reconciles",
            (Query(f"sum by (result) (rate({series(operator.RECONCILES)}[{WINDOW}]))", "{{result}}"),),
            unit="ops",
        ),
        Panel(
            "Duration of a reconcile",
            (
                Query(quantile(0.5, operator.RECONCILE_SECONDS, "", WINDOW), "p50"),
                Query(quantile(0.99, operator.RECONCILE_SECONDS, "", WINDOW), "p99"),
            ),
            unit="s",
        ),
        Panel(
            "From event to reconcile",
            (
                Query(quantile(0.5, operator.WAKE_LAG, "", WINDOW), "p50"),
                Query(quantile(0.99, operator.WAKE_LAG, "", WINDOW), "p99"),
            ),
            unit="s",
        ),
        Panel(
            "Failed reconciles",
            (Query(or_zero(f"sum by (reason) (rate({series(operator.RECONCILE_ERRORS)}[{WINDOW}]))"), "{{reason}}"),),
            unit="ops",
        ),
        Panel(
            "CPU",
            (Query(f'rate(process_cpu_seconds_total{{job=~".*asyncppo.*"}}[{WINDOW}])', "{{instance}}"),),
            unit="percentunit",
        ),
        Panel("Memory", (Query('process_resident_memory_bytes{job=~".*asyncppo.*"}', "{{instance}}"),), unit="bytes"),
    ],
)

API = Row(
    "The API server",
    [
        Panel(
            "Calls by answer",
            (Query(f"sum by (code) (rate({series(operator.API_REQUESTS)}[{WINDOW}]))", "{{code}}"),),
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Calls by verb",
            (Query(f"sum by (verb) (rate({series(operator.API_REQUESTS)}[{WINDOW}]))", "{{verb}}"),),
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Duration, p95", (Query(quantile(0.95, operator.API_SECONDS, "", WINDOW, "verb"), "{{verb}}"),), unit="s"
        ),
        Panel(
            "Silence of the watches", (Query(f"max by (kind) ({series(operator.WATCH_AGE)})", "{{kind}}"),), unit="s"
        ),
        Panel(
            "Watches begun anew",
            (
                Query(
                    or_zero(f"sum by (kind, reason) (rate({series(operator.WATCH_RESTARTS)}[{WINDOW}]))"),
                    "{{kind}} {{reason}}",
                ),
            ),
            unit="ops",
        ),
        Panel(
            "Rights that are missing",
            (Query(or_zero(f"sum by (verb, resource) ({series(operator.MISSING_RIGHTS)})"), "{{verb}} {{resource}}"),),
        ),
    ],
)


def text() -> str:
    """The file."""
    rows = (HEALTH, RECONCILES, API)
    return dashboard("asyncppo-operator", "AsyncPPO / Operator", "The operator itself.", [], rows)


if __name__ == "__main__":
    generated_file_main(PATH, text)
