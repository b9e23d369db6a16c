"""Fixtures of the end-to-end tests: the packaged chart on a real cluster with nodes, the built images, a Prometheus.

What they need comes by environment, so that any cluster will do:
KUBECONFIG           the cluster, with the images loaded
HELM                 the helm binary (default: the one on PATH)
ASYNCPPO_TAG         tag of the images asyncppo/{operator,learner,rollout,rollout-vllm,old-logit} (default: the chart's appVersion)
PROMETHEUS_TARGETS   a file of scrape targets with Kubernetes' meta labels, kept up to date by the caller; without it no test of the graphs
API_SERVER_STOP, API_SERVER_START   commands that take the API server away and bring it back; without them it stays
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kubernetes import ROOT, Kubectl, KubectlError
from tests.e2e.prometheus import Prometheus, configuration

SYSTEM = "asyncppo-e2e-system"
RELEASE = "asyncppo"
CHART = ROOT / "charts" / "asyncppo"
# Of one test: jobs train, pods start, and the API server is away for a minute.
LIMIT_SECONDS = 2400


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs a cluster with nodes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(LIMIT_SECONDS))


async def helm(*arguments: str) -> str:
    """Standard output. AssertionError when helm fails."""
    program = os.environ.get("HELM") or shutil.which("helm")
    assert program, "HELM names no helm binary"
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"helm {' '.join(arguments)}: {err.decode()}"
    return out.decode()


async def shell(command: str) -> None:
    """Run a command of the environment. AssertionError when it fails."""
    process = await asyncio.create_subprocess_shell(command)
    assert await process.wait() == 0, command


@pytest.fixture(scope="session")
def needed() -> None:
    """A cluster must be named; the tests of this folder are asked for by name, so its absence is a failure of the caller."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no cluster")


@pytest.fixture
async def release(needed: None, tmp_path: Path) -> AsyncIterator[Kubectl]:
    """The chart, packaged and installed; kubectl in its namespace."""
    tag = os.environ.get("ASYNCPPO_TAG", "")
    said = await helm("package", str(CHART), "--destination", str(tmp_path))
    package = said.rpartition(": ")[2].strip()
    values: dict[str, Any] = {
        "image": {"tag": tag},
        "jobs": {"images": {role: {"tag": tag} for role in ("learner", "rollout", "rolloutVllm", "oldLogit")}},
        "timing": {"pollSeconds": 1, "statusSeconds": 2, "graceSeconds": 20},
        "lease": {"durationSeconds": 5},
    }
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    await helm(
        "upgrade", "--install", RELEASE, package, "-n", SYSTEM, "--create-namespace", "-f", str(file),
        "--take-ownership", "--wait", "--timeout", "180s",
    )  # fmt: skip
    system = Kubectl(SYSTEM)
    yield system
    await show(system, "logs", "-l", "app.kubernetes.io/name=asyncppo-operator", "--tail=60", "--prefix")


@pytest.fixture
async def kubectl(release: Kubectl) -> AsyncIterator[Kubectl]:
    """kubectl in a fresh namespace; what is in it when a test fails is shown."""
    made = Kubectl(f"e2e-{uuid.uuid4().hex[:6]}")
    await made.run("create", "namespace", made.namespace)
    yield made
    await show(made, "get", "appo,pods", "-o", "wide")
    await show(made, "get", "events", "--sort-by=.lastTimestamp")
    for role in ("learner", "rollout", "old-logit"):
        await show(made, "logs", "-l", f"asyncppo.io/role={role}", "--tail=20", "--prefix")
    await made.run("delete", "appo", "--all", "--wait=false")
    await made.run("delete", "namespace", made.namespace, "--wait=false")


async def show(kubectl: Kubectl, *arguments: str) -> None:
    """Print what kubectl says, for the report of a test that failed; pods that are gone have no logs."""
    try:
        print(await kubectl.run(*arguments))
    except KubectlError as error:
        print(error)


@pytest.fixture
async def prometheus(needed: None, tmp_path: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes what the chart's monitors name and evaluates the chart's rules."""
    targets = os.environ.get("PROMETHEUS_TARGETS")
    if not targets:
        pytest.skip("PROMETHEUS_TARGETS names no file of targets")
    rendered = await helm("template", RELEASE, str(CHART), "--api-versions", "monitoring.coreos.com/v1/PodMonitor")
    monitor = next(o for o in yaml.safe_load_all(rendered) if o and o["kind"] == "PodMonitor")
    made = Prometheus(tmp_path, configuration(Path(targets), CHART / "files" / "rules.yaml", monitor))
    await made.start()
    yield made
    await made.stop()
