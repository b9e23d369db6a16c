"""docs/metrics.md from the catalogue: `python -m asyncppo.metrics.document [--check] FILE`.

Owns the page's form. With --check it writes nothing and exits 1 when the file is not what the catalogue says.
"""

import argparse
import sys
from pathlib import Path

from asyncppo.metrics import learner, old_logit, operator, rollout
from asyncppo.metrics.metric import Metric

PARTS: tuple[tuple[str, str, tuple[Metric, ...]], ...] = (
    ("Learner", "Scraped from the learner pod, port `http`, path `/metrics`.", learner.BUILT),
    ("Rollout", "Scraped from every rollout pod, port `http`, path `/metrics`.", rollout.BUILT),
    ("Old-logit worker", "Scraped from every old-logit pod, port `http`, path `/metrics`.", old_logit.BUILT),
    (
        "Operator",
        "Scraped from the operator pod, port `http`, path `/metrics`. Series of a deleted job are gone at the next scrape.",
        operator.BUILT,
    ),
)

HEAD = """# Metrics

<!-- made by `python -m asyncppo.metrics.document docs/metrics.md`; edit images/shared/asyncppo/metrics/ instead -->

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


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 when written or equal, 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m asyncppo.metrics.document", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    text = page()
    if not options.check:
        options.file.write_text(text)
        return 0
    if options.file.exists() and options.file.read_text() == text:
        return 0
    sys.stderr.write(
        f"{options.file} is not what the catalogue says: python -m asyncppo.metrics.document {options.file}\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
