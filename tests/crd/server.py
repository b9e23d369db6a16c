"""An API server as these tests talk to it: plain HTTP through `kubectl proxy`, so that every refusal comes with its paths.

Owns nothing that is tested. The server is whatever KUBECONFIG names; namespaces are made where it knows such.
"""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncppo.api.job import GROUP, PLURAL, VERSION

Object = dict[str, Any]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEFINITION = f"{DEFINITIONS}/{PLURAL}.{GROUP}"
MERGE = "application/merge-patch+json"
PATIENCE = 60.0


@dataclass(frozen=True)
class Cause:
    """One thing that a server refuses: the path of the field and what it says of it."""

    field: str
    message: str


@dataclass(frozen=True)
class Answer:
    """status: of HTTP. body: the object, or the Status of a refusal. warnings: as headers."""

    status: int
    body: Object
    warnings: tuple[str, ...]

    @property
    def taken(self) -> bool:
        """Whether the server did it."""
        return self.status < 300

    @property
    def causes(self) -> list[Cause]:
        """What it refused."""
        details = self.body.get("details") or {}
        return [Cause(cause.get("field", ""), cause.get("message", "")) for cause in details.get("causes") or ()]


class Server:
    """The API server behind a `kubectl proxy` at `base`; jobs live in `namespace`."""

    def __init__(self, base: str, namespace: str) -> None:
        self._base = base
        self.namespace = namespace
        self.jobs = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"

    def ask(self, method: str, path: str, body: Object | None = None, content: str = "application/json") -> Answer:
        """One request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": content}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return Answer(response.status, json.load(response), tuple(response.headers.get_all("Warning") or ()))
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            told = json.loads(text) if text.startswith("{") else {"message": text}
            return Answer(error.code, told, tuple(error.headers.get_all("Warning") or ()))

    def try_new(self, job: Object) -> Answer:
        """What the server would say to this new job, strictly; nothing is kept."""
        return self.ask("POST", f"{self.jobs}?dryRun=All&fieldValidation=Strict", job)

    def make(self, job: Object) -> Answer:
        """Keep it."""
        return self.ask("POST", f"{self.jobs}?fieldValidation=Strict", job)

    def get(self, name: str) -> Object:
        """A job that is there."""
        answer = self.ask("GET", f"{self.jobs}/{name}")
        assert answer.taken, answer
        return answer.body

    def patch(self, name: str, patch: Object, what: str = "", dry_run: bool = False) -> Answer:
        """A merge patch. what: /status or /scale; nothing for the job itself."""
        options = "?dryRun=All" if dry_run else ""
        return self.ask("PATCH", f"{self.jobs}/{name}{what}{options}", patch, MERGE)

    def clear(self) -> None:
        """No jobs any more."""
        self.ask("DELETE", self.jobs)

    def define(self, definition: Object) -> Answer:
        """The definition, new or in place of another; returns when jobs can be asked for."""
        there = self.ask("GET", DEFINITION)
        if there.taken:
            metadata = definition["metadata"] | {"resourceVersion": there.body["metadata"]["resourceVersion"]}
            answer = self.ask("PUT", f"{DEFINITION}?fieldValidation=Strict", definition | {"metadata": metadata})
        else:
            answer = self.ask("POST", f"{DEFINITIONS}?fieldValidation=Strict", definition)
        if answer.taken:
            self.until(lambda: self.ask("GET", self.jobs).taken, "the resource to be served")
        return answer

    def until(self, look: Callable[[], bool], what: str) -> None:
        """Wait for something that becomes true a moment after the server has said yes."""
        deadline = time.monotonic() + PATIENCE
        while not look():
            assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s in vain for {what}"
            time.sleep(0.1)

    def kubectl(self, *arguments: str, stdin: str | None = None, expect: int | None = 0) -> str:
        """kubectl in the jobs' namespace: both its outputs. expect: its exit status; None: any."""
        command = ["kubectl", "--kubeconfig", os.environ["KUBECONFIG"], "-n", self.namespace, *arguments]
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        said = ended.stdout + ended.stderr
        assert expect in (None, ended.returncode), (
            f"kubectl {' '.join(arguments)} ended with {ended.returncode}: {said}"
        )
        return said
