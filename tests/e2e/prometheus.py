"""A real Prometheus for the time of a test: scrapes what a file of targets names, as the chart's monitors would.

Owns the process and its configuration. The targets file is kept by whoever runs the tests (PROMETHEUS_TARGETS): Debian's Prometheus
has no service discovery of its own for Kubernetes.
"""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from tests.cluster.conftest import free_port
from tests.cluster.kubernetes import until

INTERVAL = "2s"
OPERATOR_PORT = "http"
"""The port of the operator's pod that the chart's ServiceMonitor scrapes, through the Service."""


def configuration(targets: Path, rules: Path, monitor: dict[str, Any]) -> dict[str, Any]:
    """`monitor`: the chart's PodMonitor, whose relabelings are used as they are. rules: a file of alert rules."""
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    relabelings = [
        {
            "source_labels": rule["sourceLabels"],
            "target_label": rule["targetLabel"],
        }
        for rule in endpoint["relabelings"]
    ]
    common: list[dict[str, Any]] = [
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
    ]

    def job(name: str, label: str, value: str, port: str, more: list[dict[str, Any]]) -> dict[str, Any]:
        keep = {"source_labels": [f"__meta_kubernetes_pod_label_{label}"], "regex": value, "action": "keep"}
        on = {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": port, "action": "keep"}
        return {
            "job_name": name,
            "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
            "relabel_configs": [keep, on, *common, *more],
        }

    return {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(rules)],
        "scrape_configs": [
            job("asyncppo-jobs", "app_kubernetes_io_managed_by", "asyncppo-operator", endpoint["port"], relabelings),
            job("asyncppo-operator", "app_kubernetes_io_name", "asyncppo-operator", OPERATOR_PORT, []),
        ],
    }


class Prometheus:
    """Debian's, on a port of its own."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._folder = folder
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self.base = f"http://127.0.0.1:{free_port()}"

    async def start(self) -> None:
        """Returns when it is ready."""
        program = shutil.which("prometheus")
        assert program is not None, "Prometheus is not installed (Debian: apt-get install prometheus)"
        file = self._folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(self._config))
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self.base.removeprefix('http://')}",
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "1"},
            )
        await until(self._ready, "Prometheus")

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()

    async def query(self, expression: str) -> list[float]:
        """The values of an instant query. AssertionError for one that Prometheus refuses."""
        answer = await self.get("/api/v1/query", query=expression)
        assert answer["status"] == "success", f"{expression}: {answer}"
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [float(data["result"][1])]
        return [float(sample["value"][1]) for sample in data["result"]]

    async def firing(self) -> list[str]:
        """Alerts that fire now."""
        alerts = (await self.get("/api/v1/alerts"))["data"]["alerts"]
        return sorted({a["labels"]["alertname"] for a in alerts if a["state"] == "firing"})

    async def up(self) -> dict[str, bool]:
        """Scraped targets by pod, and whether the last scrape went well."""
        targets = (await self.get("/api/v1/targets"))["data"]["activeTargets"]
        return {t["labels"]["pod"]: t["health"] == "up" for t in targets}

    async def get(self, path: str, **query: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(self.base + path, params=query) as response:
            return await response.json()

    async def _ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(self.base + "/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False
