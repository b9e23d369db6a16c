"""docs/metrics.md from the catalogue: `python -m asyncppo.metrics.document --write|--check`.

Owns the page's form. Does not own what is in it.
"""

from asyncppo.api.generated import generated_file_main
from asyncppo.metrics import learner, old_logit, operator, rollout
from asyncppo.metrics.metric import Metric

PATH = "docs/metrics.md"
PARTS: tuple[tuple[str, str, tuple[Metric, ...]], ...] = (
    ("Learner", "Scraped from the learner pod, port `metrics`, path `/metrics`.", learner.BUILT),
    ("Rollout", "Scraped from every rollout pod, port `metrics`, path `/metrics`.", rollout.BUILT),
    ("Old-logit worker", "Scraped from every old-logit pod, port `metrics`, path `/metrics`.", old_logit.BUILT),
    (
        "Operator",
        "Scraped from the operator pod, port `http`, path `/metrics`. Series of a deleted job are gone at the next scrape.",
        operator.BUILT,
    ),
)

HEAD = """# Metrics

<!-- made by `python -m asyncppo.metrics.document --write`; edit images/shared/asyncppo/metrics/ instead -->

Every program serves Prometheus text on `/metrics`. Pods carry the job's name as the label `asyncppo.io/job`, which the chart's
PodMonitor lifts to `asyncppo_job` (and the namespace to `asyncppo_namespace`), the very labels of the operator's per-job series.
"""


def page() -> str:
    """The whole page, Markdown."""
    lines = [HEAD]
    for title, text, metrics in PARTS:
        lines += [f"## {title}", "", text, "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in metrics:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            meaning = metric.help
            if metric.buckets:
                meaning += f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}."
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {meaning} |".replace("|  |", "| |"))
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    generated_file_main(PATH, page)
