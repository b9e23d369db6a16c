"""Fixtures of the tests of the definition: a server, the definition in it, and whether that server judges by rules.

Needs KUBECONFIG and kubectl, and no more than the part of an API server that keeps custom resources: no namespaces, no pods, no operator.
"""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crd.server import Answer, Server
from tests.unit.api.builders import document

from asyncppo.api.crd import crd


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs an API server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def bare_server() -> Iterator[Server]:
    """The API server, as it is."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG names no API server")
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl")
    proxy = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    assert proxy.stdout is not None
    try:
        found = re.search(r"127\.0\.0\.1:\d+", proxy.stdout.readline())
        assert found is not None, "kubectl proxy does not say where it listens"
        server = Server(f"http://{found[0]}", f"test-{uuid.uuid4().hex[:8]}")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": server.namespace}}
        made = server.ask("POST", "/api/v1/namespaces", namespace)
        assert made.status in (201, 404), made  # 404: a server without namespaces takes any name
        yield server
        server.clear()
        server.ask("DELETE", f"/api/v1/namespaces/{server.namespace}")
    finally:
        proxy.terminate()
        proxy.wait()
        proxy.stdout.close()


@pytest.fixture(scope="session")
def installed(bare_server: Server) -> Answer:
    """What the server said to the definition."""
    answer = bare_server.define(crd())
    assert answer.taken, answer.body
    return answer


@pytest.fixture
def server(bare_server: Server, installed: Answer) -> Iterator[Server]:
    """The server with the definition, and no jobs."""
    yield bare_server
    bare_server.clear()


@pytest.fixture(scope="session")
def judges(bare_server: Server, installed: Answer) -> bool:
    """Whether the server asks the definition's rules. Older ones drop them, and the operator alone refuses."""
    return not bare_server.try_new(document({"model.pretrained": "a second model"})).taken


@pytest.fixture
def judging(judges: bool) -> None:
    """Skips where the server asks no rules."""
    if not judges:
        pytest.skip("this server knows no rules in definitions")
