"""A Kubernetes API server as the tests use it: kubectl as a subprocess, and waiting for what must become true.

Owns nothing that is tested. The server is whatever KUBECONFIG names.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
GENEROUS = 180.0


class KubectlError(Exception):
    """kubectl said no; the message is its standard error."""


class Kubectl:
    """kubectl in one namespace."""

    def __init__(self, namespace: str, kubeconfig: str | None = None) -> None:
        self.namespace = namespace
        self.kubeconfig = kubeconfig or os.environ["KUBECONFIG"]

    async def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Standard output. Raises KubectlError."""
        process = await asyncio.create_subprocess_exec(
            "kubectl", "--kubeconfig", self.kubeconfig, "-n", self.namespace, *arguments,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(stdin.encode() if stdin is not None else None)
        if process.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {err.decode().strip()}")
        return out.decode()

    async def apply(self, *objects: Object) -> None:
        """Client-side, as people do."""
        await self.run("apply", "-f", "-", stdin="\n---\n".join(yaml.safe_dump(o) for o in objects))

    async def get(self, kind: str, name: str) -> Object | None:
        """None when it is not there."""
        try:
            found: Object = json.loads(await self.run("get", kind, name, "-o", "json"))
        except KubectlError as error:
            if "NotFound" in str(error):
                return None
            raise
        return found

    async def list(self, kind: str, selector: str = "") -> list[Object]:
        """All of a kind in the namespace."""
        extra = ("-l", selector) if selector else ()
        found: list[Object] = json.loads(await self.run("get", kind, "-o", "json", *extra))["items"]
        return found

    async def patch(self, kind: str, name: str, patch: Object) -> None:
        """A JSON merge patch."""
        await self.run("patch", kind, name, "--type=merge", "-p", json.dumps(patch))


async def until(look: Callable[[], Any], what: str, timeout: float = GENEROUS) -> Any:
    """The first truthy answer of `look` (awaited where it is a coroutine). AssertionError with the last answer after `timeout`."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s in vain for: {what}; last: {found!r}")
        await asyncio.sleep(0.1)


def conditions(found: Object) -> dict[str, Object]:
    """An object's conditions by type."""
    return {c["type"]: c for c in (found.get("status") or {}).get("conditions") or []}


ROOT = Path(__file__).parents[2]
