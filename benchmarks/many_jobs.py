"""How one operator takes many jobs at once: time to first status and to complete children, reconciles, CPU and memory.

    KUBECONFIG=… python benchmarks/many_jobs.py [--jobs 1000] [--rollouts 2] [--workers 16] [--builders 2]

Any API server will do; one without nodes is best, for the pods are there and cannot be scheduled, and nothing else takes the machine's
time. The jobs are created as fast as the server takes them; times count from the first creation. "children" are all objects the operator
makes for a job; "pods" are made from them by the cluster's own controllers. CPU and memory are the operator's process alone. The aims
are 60 s to every first status, p99 of reconciles under 1 s, 300 MB; the exit code is 1 when one is missed. The namespace is deleted
at the end, but for `--keep`.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from asyncppo.api.job import API_VERSION, KIND
from asyncppo_operator import names
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.informer import Informer
from asyncppo_operator.kinds import (
    ACCOUNT,
    BUDGET,
    BUDGET_BETA,
    CLAIM,
    CONFIG_MAP,
    JOB,
    NETWORK_POLICY,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Resource,
)  # fmt: skip
from asyncppo_operator.names import Role
from asyncppo_operator.settings import Settings
from asyncppo_operator.telemetry import Telemetry

ROOT = Path(__file__).parents[1]
AIM_FIRST_STATUS, AIM_RECONCILE_P99, AIM_MEGABYTES = 60.0, 1.0, 300.0
CREATORS = 16
PATIENCE_SECONDS = 900.0
SCRAPE_SECONDS = 10.0
"""As Prometheus would: scraping 1,000 jobs' series costs the operator time too."""
EACH = {ACCOUNT: 1, CONFIG_MAP: 1, CLAIM: 1, SECRET: 1, NETWORK_POLICY: 1, SERVICE: 2, STATEFUL_SET: 2}
"""Objects of one job by kind; disruption budgets, two more, are of one API version or the other."""


@dataclass
class Times:
    """Seconds since the first creation. statuses, complete: one figure per job."""

    begun: float = 0.0
    created: float = 0.0
    statuses: dict[str, float] = field(default_factory=dict)
    complete: dict[str, float] = field(default_factory=dict)
    pods: float = 0.0
    megabytes: float = 0.0
    cpu: float = 0.0
    samples: dict[str, float] = field(default_factory=dict)

    def since(self) -> float:
        """Now."""
        return time.monotonic() - self.begun


def manifest(namespace: str, number: int, rollouts: int) -> dict[str, Any]:
    """A small valid job."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": f"job-{number:05d}", "namespace": namespace},
        "spec": {
            "model": {"builtin": {}},
            "environment": {"type": "GuessNumber"},
            "algorithm": {"updates": 10},
            "oldLogits": {"strategy": "Interruption"},
            "rollout": {"replicas": rollouts},
        },
    }


def start_operator(folder: Path, namespace: str, options: argparse.Namespace) -> "tuple[subprocess.Popen[bytes], str]":
    """The operator's own program and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "operator.yaml"
    settings = {
        "namespace": namespace,
        "namespaces": [namespace],
        "listen": f"127.0.0.1:{port}",
        "workers": options.workers,
        "builders": options.builders,
        "lease": {"enabled": False},
    }
    config.write_text(yaml.safe_dump(settings))
    with (folder / "operator.log").open("wb") as log:
        command = [sys.executable, "-m", "asyncppo_operator.main", "--config", str(config), "--log-level", "WARNING"]
        return subprocess.Popen(command, stdout=log, stderr=log), f"http://127.0.0.1:{port}"


async def scrape(session: aiohttp.ClientSession, base: str) -> dict[str, float]:
    """The operator's samples summed over their labels but le, and calls by verb and kind."""
    async with session.get(base + "/metrics") as response:
        text = await response.text()
    found: dict[str, float] = Counter()
    for family in text_string_to_metric_families(text):
        if family.name.startswith(
            ("asyncppo_operator_reconcile", "asyncppo_operator_wake", "asyncppo_operator_api", "process_")
        ):
            for sample in family.samples:
                key = f"{sample.name}:{sample.labels['le']}" if "le" in sample.labels else sample.name
                if family.name == "asyncppo_operator_api_requests":
                    key = f"calls:{sample.labels['verb']} {sample.labels['kind']}"
                found[key] += sample.value
    return found


def quantile(samples: dict[str, float], name: str, share: float) -> float:
    """From a histogram's buckets, as PromQL's histogram_quantile does."""
    prefix = f"{name}_bucket:"
    buckets = sorted((float(key.removeprefix(prefix)), v) for key, v in samples.items() if key.startswith(prefix))
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / max(1.0, count - below)
        low, below = bound, count
    return low


async def create(cluster: Cluster, namespace: str, options: argparse.Namespace, times: Times) -> None:
    """All jobs, several at once."""
    numbers = iter(range(options.jobs))
    times.begun = time.monotonic()

    async def creator() -> None:
        for number in numbers:
            await cluster.create(manifest(namespace, number, options.rollouts))

    await asyncio.gather(*(creator() for _ in range(CREATORS)))
    times.created = times.since()


def watcher(
    cluster: Cluster, telemetry: Telemetry, resource: Resource, namespace: str, seen: dict[str, float], times: Times
) -> Informer:
    """Notes when each job has a status, or its last object, the rollouts' StatefulSet, is there."""
    suffix = f"-{Role.ROLLOUT.value}"

    def changed(_: str, found: dict[str, Any]) -> None:
        name = str((found.get("metadata") or {}).get("name", ""))
        if resource is JOB and (found.get("status") or {}).get("phase"):
            seen.setdefault(name, times.since())
        elif resource is STATEFUL_SET and name.endswith(suffix):
            seen.setdefault(name.removesuffix(suffix), times.since())

    def listed(_: str | None, objects: list[dict[str, Any]]) -> None:
        for found in objects:
            changed("ADDED", found)

    return Informer(cluster, resource, namespace, "", "", telemetry, listed, changed)


async def sample(session: aiohttp.ClientSession, base: str, times: Times) -> None:
    """Keep the newest scrape and the most memory; until cancelled."""
    while True:
        times.samples = await scrape(session, base)
        times.megabytes = max(times.megabytes, times.samples["process_resident_memory_bytes"] / 1e6)
        await asyncio.sleep(SCRAPE_SECONDS)


async def count(cluster: Cluster, resource: Resource, namespace: str) -> int:
    """Objects of the jobs."""
    objects, _ = await cluster.list(resource, namespace, names.MANAGED_SELECTOR)
    return len(objects)


async def check_children(cluster: Cluster, namespace: str, jobs: int) -> None:
    """RuntimeError when objects are missing though each job's last one was seen."""
    budget = BUDGET if await cluster.serves(BUDGET) else BUDGET_BETA
    for resource, each in (*EACH.items(), (budget, 2)):
        there = await count(cluster, resource, namespace)
        if there != each * jobs:
            raise RuntimeError(f"{there} {resource.plural}, not {each * jobs}")


async def measure(options: argparse.Namespace, namespace: str, base: str) -> Times:
    """Create, watch, count."""
    times = Times()
    telemetry = Telemetry(CollectorRegistry())
    async with await Cluster.connect(telemetry) as cluster, aiohttp.ClientSession() as session:
        await _serving(session, base)
        watchers = [asyncio.create_task(sample(session, base, times))]
        for resource, seen in ((JOB, times.statuses), (STATEFUL_SET, times.complete)):
            informer = watcher(cluster, telemetry, resource, namespace, seen, times)
            watchers.append(asyncio.create_task(informer.run()))
            while not informer.synced:  # noqa: ASYNC110 - it has no event to wait on
                await asyncio.sleep(0.1)
        cpu_before = (await scrape(session, base))["process_cpu_seconds_total"]
        await create(cluster, namespace, options, times)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while min(len(times.statuses), len(times.complete)) < options.jobs:
                for task in watchers:
                    if task.done():
                        task.result()
                progress(times, options.jobs)
                await asyncio.sleep(1.0)
            times.cpu = (await scrape(session, base))["process_cpu_seconds_total"] - cpu_before
            await check_children(cluster, namespace, options.jobs)
            pods = options.jobs * (1 + options.rollouts)
            while await count(cluster, POD, namespace) < pods:  # noqa: ASYNC110 - pods are counted by asking
                await asyncio.sleep(2.0)
            times.pods = times.since()
        await asyncio.sleep(options.settle)
        times.samples = await scrape(session, base)
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    return times


async def _serving(session: aiohttp.ClientSession, base: str) -> None:
    async with asyncio.timeout(60.0):
        while True:
            try:
                async with session.get(base + "/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.2)


def progress(times: Times, jobs: int) -> None:
    """Where it is, on one line of the terminal."""
    sys.stderr.write(
        f"\r{times.since():5.0f} s: {len(times.statuses)}/{jobs} jobs with a status, {len(times.complete)} with all children, "
        f"operator {times.megabytes:.0f} MB "
    )
    sys.stderr.flush()


def report(times: Times, options: argparse.Namespace) -> bool:
    """Print the figures; whether the aims are met."""
    first, last = (sorted(seen.values()) for seen in (times.statuses, times.complete))
    reconcile, lag = "asyncppo_operator_reconcile_seconds", "asyncppo_operator_wake_lag_seconds"
    p99 = quantile(times.samples, reconcile, 0.99)
    aims = (
        ("first status, all jobs", first[-1], AIM_FIRST_STATUS, "s"),
        ("reconcile p99", p99, AIM_RECONCILE_P99, "s"),
        ("operator's memory at most", times.megabytes, AIM_MEGABYTES, "MB"),
    )
    print(
        f"{options.jobs} jobs of {1 + options.rollouts} pods, {options.workers} reconciles at once, {options.builders} of objects"
    )
    print(f"{'created':<34}{times.created:>9.1f} s")
    print(f"{'first status, half of the jobs':<34}{first[len(first) // 2]:>9.1f} s")
    print(f"{'first status, all jobs':<34}{first[-1]:>9.1f} s")
    print(f"{'children, half of the jobs':<34}{last[len(last) // 2]:>9.1f} s")
    print(f"{'children, all jobs':<34}{last[-1]:>9.1f} s")
    print(f"{'pods, all jobs':<34}{times.pods:>9.1f} s")
    print(f"{'reconciles':<34}{times.samples[f'{reconcile}_count']:>9.0f}")
    print(f"{'reconcile p50':<34}{quantile(times.samples, reconcile, 0.5):>9.3f} s")
    print(f"{'reconcile p99':<34}{p99:>9.3f} s")
    print(f"{'wait for a turn p99':<34}{quantile(times.samples, lag, 0.99):>9.3f} s")
    print(f"{'CPU until all children':<34}{times.cpu:>9.1f} s")
    calls = sorted(((n, key) for key, n in times.samples.items() if key.startswith("calls:")), reverse=True)
    each = (f"{key.removeprefix('calls:')} {n / options.jobs:.1f}" for n, key in calls if n >= options.jobs / 2)
    print(f"calls to the API server per job: {', '.join(each)}")
    met = True
    for name, value, aim, unit in aims:
        met &= value <= aim
        print(f"aim: {name:<29}{value:>9.3g} {unit}, {'under' if value <= aim else 'MISSED:'} {aim:g} {unit}")
    return met


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rollouts", type=int, default=2, help="rollout replicas of each job")
    parser.add_argument("--workers", type=int, default=Settings().workers, help="the operator's reconciles at once")
    parser.add_argument("--builders", type=int, default=Settings().builders, help="how many of these may apply objects")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds to go on measuring when everything is there")
    parser.add_argument("--keep", action="store_true", help="leave the namespace as it is")
    return parser.parse_args()


def main() -> int:
    """The benchmark."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the operator and the namespace go then too
    if not os.environ.get("KUBECONFIG"):
        sys.stderr.write("KUBECONFIG names no API server\n")
        return 2
    namespace = f"many-jobs-{uuid.uuid4().hex[:6]}"
    kubectl = ["kubectl", "--kubeconfig", os.environ["KUBECONFIG"]]
    subprocess.run(
        [*kubectl, "apply", "--validate=false", "-f", str(ROOT / "crds")], check=True, stdout=subprocess.DEVNULL
    )
    wait = ["wait", "--for=condition=Established", "crd/asyncppojobs.asyncppo.io", "--timeout=60s"]
    subprocess.run([*kubectl, *wait], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*kubectl, "create", "namespace", namespace], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        operator, base = start_operator(Path(folder), namespace, options)
        try:
            times = asyncio.run(measure(options, namespace, base))
        except BaseException:
            sys.stderr.write((Path(folder) / "operator.log").read_text()[-3000:])
            raise
        finally:
            operator.terminate()
            operator.wait()
            if not options.keep:
                delete = ["delete", "namespace", namespace, "--wait=false"]
                subprocess.run([*kubectl, *delete], check=True, stdout=subprocess.DEVNULL)
    return 0 if report(times, options) else 1


if __name__ == "__main__":
    sys.exit(main())
