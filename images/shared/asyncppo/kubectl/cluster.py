"""kubectl as a subprocess: what the plugin asks of a cluster, with the user's own context and rights.

Owns the calls and how their failures are said. Does not own what the answers mean.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from asyncppo.errors import UserError

Object = dict[str, Any]
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]

RESOURCE = "asyncppojobs.asyncppo.io"
PORT, METRICS_PORT_NAME = 8080, "metrics"
LABEL_JOB, LABEL_ROLE = "asyncppo.io/job", "asyncppo.io/role"


@dataclass(frozen=True)
class Cluster:
    """Where to ask. Empty fields: what kubectl takes by itself. UserError when kubectl says no; its own words are kept."""

    namespace: str = ""
    context: str = ""
    program: str = "kubectl"

    def jobs(self) -> list[Object]:
        """All jobs of the namespace."""
        found: list[Object] = json.loads(self._run("get", RESOURCE, "-o", "json"))["items"]
        return found

    def job(self, name: str) -> Object:
        """One job."""
        found: Object = json.loads(self._run("get", RESOURCE, name, "-o", "json"))
        return found

    def pods(self, job: str) -> list[Object]:
        """A job's pods."""
        found: list[Object] = json.loads(self._run("get", "pods", "-l", f"{LABEL_JOB}={job}", "-o", "json"))["items"]
        return found

    def events(self, uid: str) -> list[Object]:
        """Events about an object, oldest first."""
        found = json.loads(self._run("get", "events", "--field-selector", f"involvedObject.uid={uid}", "-o", "json"))
        return sorted(found["items"], key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    def metrics(self, pod: Object) -> Samples:
        """What a pod tells on /metrics, through the API server; empty when it tells nothing or that is not allowed."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:{metrics_port(pod)}/proxy/metrics"
        try:
            return parse_samples(self._run("get", "--raw", path))
        except (UserError, ValueError):
            return {}

    def read_file(self, pod: Object, path: str) -> str:
        """A text file in a pod's first container."""
        return self._run("exec", pod["metadata"]["name"], "--", "cat", path)

    def server_check(self, manifest: str) -> str:
        """What the API server says to this manifest, without keeping it. UserError when it refuses."""
        return self._run("apply", "--dry-run=server", "-f", manifest).strip()

    def follow(self, *arguments: str) -> int:
        """Run kubectl with this process's own input and output; its exit status."""
        return subprocess.run(self._command(arguments), check=False).returncode

    def _run(self, *arguments: str) -> str:
        result = subprocess.run(self._command(arguments), capture_output=True, text=True, check=False)
        if result.returncode:
            raise UserError(result.stderr.strip() or f"{self.program} ended with {result.returncode}")
        return result.stdout

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        program = shutil.which(self.program)
        if program is None:
            raise UserError(f"there is no {self.program} on PATH; install it, this plugin asks the cluster through it")
        where = [f"--namespace={self.namespace}"] if self.namespace else []
        where += [f"--context={self.context}"] if self.context else []
        return [program, *where, *arguments]


def metrics_port(pod: Object) -> int:
    """The port that a pod is scraped on; pods of an earlier version have one port for all."""
    ports = [port for container in pod.get("spec", {}).get("containers", []) for port in container.get("ports", [])]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == METRICS_PORT_NAME), PORT)


def parse_samples(text: str) -> Samples:
    """Prometheus text as {name: {labels: value}}. ValueError for text that is none."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found
