"""Makes tests/dashboards/recording.jsonl.gz: three real jobs and the operator, scraped by a real Prometheus. Run by name:

    python -m pytest tests/e2e/record_dashboards.py

One job completes, one fails, and one still runs when the others are over; each shows what the others' strategies have no figures for.
"""

import time
from typing import Any

import yaml
from tests.cluster.jobs import Job
from tests.cluster.kubernetes import ROOT, Kubectl, Object, until
from tests.dashboards.recording import FILE, Moment, Series, names, write
from tests.e2e.prometheus import Prometheus

from asyncppo.metrics import learner, old_logit, operator, rollout

LONG = 1200.0
EVERY_SECONDS = 5  # of what was scraped more often
# The scraper's own, and those that differ between two recordings of the same.
LEFT_OUT = {"instance", "container", "endpoint", "pod_template_hash"}


def job(name: str, **changes: Any) -> Object:
    """The example, changed: top-level fields of the spec are merged one level deep."""
    made: Object = yaml.safe_load((ROOT / "examples" / "guess-number.yaml").read_text())
    made["metadata"] = {"name": name}
    for field, value in changes.items():
        old = made["spec"].get(field)
        made["spec"][field] = {**old, **value} if isinstance(old, dict) and field != "oldLogits" else value
    return made


COMPLETE = job(
    "complete",
    algorithm={"updates": 60, "klCoefficient": 0.001},
    oldLogits={"strategy": "EWMA", "ewma": {}, "auditFraction": 0.2},
    rollout={"replicas": 1},
)
RUNNING = job(
    "running",
    algorithm={"updates": 100000, "advantage": "GAE", "critic": {}, "klCoefficient": 0.001},
    oldLogits={"strategy": "Dedicated"},
    oldLogit={"replicas": 1},
)
FAILED = job("failed", activeDeadlineSeconds=200, algorithm={"updates": 100000}, rollout={"replicas": 1})


async def test_record(kubectl: Kubectl, prometheus: Prometheus) -> None:
    """Not a test: pytest brings the chart, the namespace and the Prometheus."""
    begin = time.time()
    await kubectl.apply(COMPLETE, RUNNING, FAILED)
    jobs = {name: Job(kubectl, name) for name in ("complete", "running", "failed")}

    async def over() -> bool:
        phases = {name: await job.phase() for name, job in jobs.items()}
        assert phases["complete"] != "Failed", await jobs["complete"].status()
        assert phases["running"] not in ("Failed", "Complete"), await jobs["running"].status()
        progress = ((await jobs["running"].status()).get("progress") or {}).get("update", 0)
        return phases["complete"] == "Complete" and phases["failed"] == "Failed" and progress >= 30

    await until(over, "one job to complete, one to fail, one to run", LONG)
    # two more scrapes and the time that rates look back
    await until(lambda: _later(time.time()), "the last scrapes", 60)
    end = time.time()
    series = list(await _everything(prometheus, begin, end))
    # one with labels has no series before the first event of its kind
    metrics = (*learner.BUILT, *rollout.BUILT, *old_logit.BUILT, *operator.BUILT)
    wanted = {metric.name for metric in metrics if not metric.labels}
    found = {name.removesuffix("_bucket") for name in names(series)}
    assert wanted - found == set()
    write({name: Moment(kubectl.namespace, name, begin, end) for name in jobs}, series, FILE)
    print(f"{FILE}: {len(series)} series, {FILE.stat().st_size} bytes")


_asked: list[float] = []


async def _later(now: float) -> bool:
    _asked.append(now)
    return now - _asked[0] > 20


async def _everything(prometheus: Prometheus, begin: float, end: float) -> list[Series]:
    query = '{__name__=~"asyncppo_.*|process_cpu_seconds_total|process_resident_memory_bytes"}'
    answer = await prometheus.get("/api/v1/query", query=f"{query}[{int(end - begin) + 30}s]", time=str(end))
    assert answer["status"] == "success", answer
    made: list[Series] = []
    for one in answer["data"]["result"]:
        labels = {key: value for key, value in one["metric"].items() if key not in LEFT_OUT}
        samples: list[tuple[float, str]] = []
        for at, value in one["values"]:
            if not samples or at - samples[-1][0] >= EVERY_SECONDS - 0.5:
                samples.append((round(at, 1), value))
        made.append(Series(labels, samples))
    return made
