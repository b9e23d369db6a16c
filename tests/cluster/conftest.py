"""Fixtures of the cluster tests: a namespace of its own for each test, the CRD, operators as processes.

The API server is whatever KUBECONFIG names; one without nodes will do, for no pod has to run: tests write pod statuses themselves.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kubernetes import ROOT, Kubectl
from tests.cluster.processes import LearnerDouble, OperatorProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs an API server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session", autouse=True)
def crd() -> None:
    """The CRD, as committed."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no API server")
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl")
    # servers before 1.25 know no CEL rules and drop them; their kubectl validation would refuse them
    command = ["kubectl", "apply", "--validate=false", "-f", str(ROOT / "crds")]
    subprocess.run(command, check=True, capture_output=True)
    wait = ["kubectl", "wait", "--for=condition=Established", "crd/asyncppojobs.asyncppo.io", "--timeout=60s"]
    subprocess.run(wait, check=True, capture_output=True)


@pytest.fixture
async def kubectl() -> AsyncIterator[Kubectl]:
    """kubectl in a fresh namespace, which is deleted afterwards."""
    made = Kubectl(f"test-{uuid.uuid4().hex[:8]}")
    await made.run("create", "namespace", made.namespace)
    yield made
    await made.run("delete", "namespace", made.namespace, "--wait=false")


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Operators:
    """Starts operators that watch one namespace."""

    def __init__(self, folder: Path, kubectl: Kubectl) -> None:
        self._folder = folder
        self._kubectl = kubectl
        self.started: list[OperatorProcess] = []

    async def start(self, kubeconfig: str | None = None, name: str = "one", **settings: Any) -> OperatorProcess:
        """Returns when the operator serves its port. `settings` replace top-level ones."""
        port = free_port()
        content = {
            "namespace": self._kubectl.namespace,
            "namespaces": [self._kubectl.namespace],
            "listen": f"127.0.0.1:{port}",
            "timing": {"pollSeconds": 0.3, "statusSeconds": 0.5, "graceSeconds": 5, "retryLimitSeconds": 2},
        } | settings
        number = len(self.started)
        config = self._folder / f"operator-{number}.yaml"
        config.write_text(yaml.safe_dump(content))
        log = self._folder / f"operator-{number}.log"
        made = OperatorProcess(config, log, port, kubeconfig or self._kubectl.kubeconfig, name)
        self.started.append(made)
        await made.start()
        return made


@pytest.fixture
async def operators(tmp_path: Path, kubectl: Kubectl, request: pytest.FixtureRequest) -> AsyncIterator[Operators]:
    """A starter of operators; all are ended, and their logs shown when the test failed."""
    made = Operators(tmp_path, kubectl)
    yield made
    await asyncio.gather(*(operator.end() for operator in made.started))
    for operator in made.started:
        print(f"--- {operator.log.name}\n{operator.log.read_text()[-6000:]}")  # shown by pytest when the test fails


@pytest.fixture(autouse=True)
async def learners_end() -> AsyncIterator[None]:
    """No learner of a test answers in the next one."""
    yield
    for learner in list(LearnerDouble.serving):
        await learner.stop()


@pytest.fixture
async def operator(operators: Operators) -> OperatorProcess:
    """One operator with every right."""
    return await operators.start()


@pytest.fixture
def loopback() -> str:
    """An address of this machine that no other test uses, for a learner to answer on."""
    number = uuid.uuid4().int
    return f"127.{1 + number % 250}.{number // 250 % 250}.{1 + number // 62500 % 250}"
