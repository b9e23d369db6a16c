"""One job in a test: its manifest, its children, its pods made to seem to run."""

import base64
from typing import Any

import yaml
from kubernetes.aio import client, config
from tests.cluster.kubernetes import Kubectl, KubectlError, Object, until

from asyncppo_operator import names
from asyncppo_operator.names import Role


def manifest(name: str = "guess", **spec: Any) -> Object:
    """The smallest job there is; `spec` replaces top-level fields."""
    base: Object = {
        "model": {"builtin": {}},
        "environment": {"type": "GuessNumber"},
        "algorithm": {"updates": 10},
        "oldLogits": {"strategy": "Interruption"},
    }
    return {
        "apiVersion": "asyncppo.io/v1alpha1",
        "kind": "AsyncPPOJob",
        "metadata": {"name": name},
        "spec": base | spec,
    }


async def judges_rules(kubectl: Kubectl) -> bool:
    """Whether the server asks the definition's rules, found out by a dry run: one that does refuses a job with two models. One that
    does not takes every job that fits the schema, and the operator alone refuses it."""
    try:
        two = manifest("asked", model={"builtin": {}, "pretrained": "x"})
        await kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(two))
    except KubectlError as error:
        if "exactly one of builtin and pretrained" not in str(error):
            raise
        return True
    return False


class Job:
    """A job by name."""

    def __init__(self, kubectl: Kubectl, name: str = "guess") -> None:
        self.kubectl = kubectl
        self.name = name

    async def get(self) -> Object:
        """The job as it is now; empty when it is not there."""
        return await self.kubectl.get("appo", self.name) or {}

    async def status(self) -> Object:
        """Its status; empty before the first."""
        return (await self.get()).get("status") or {}

    async def phase(self) -> str:
        """Its phase."""
        return str((await self.status()).get("phase") or "")

    async def until_phase(self, *phases: str) -> Object:
        """Wait until it is in one of these phases; the job."""

        async def look() -> Object | None:
            job = await self.get()
            return job if (job.get("status") or {}).get("phase") in phases else None

        return dict(await until(look, f"phase {' or '.join(phases)} of {self.name}"))

    async def until_condition(self, kind: str, status: str, reason: str = "", text: str = "") -> Object:
        """Wait for a condition; the condition."""

        async def look() -> Object | None:
            for found in (await self.status()).get("conditions") or []:
                fits = (
                    found["type"] == kind
                    and found["status"] == status
                    and found["reason"] in (reason or found["reason"])
                )
                if fits and text in found["message"]:
                    return dict(found)
            return None

        return dict(await until(look, f"{kind}={status} {reason} {text!r} of {self.name}"))

    async def pods(self, role: Role | None = None) -> list[Object]:
        """Its pods, those of one role where one is named."""
        selector = f"{names.LABEL_JOB}={self.name}" + (f",{names.LABEL_ROLE}={role.value}" if role else "")
        return await self.kubectl.list("pods", selector)

    async def until_pods(self, role: Role, count: int) -> list[Object]:
        """Wait until a role has exactly so many pods that are not going."""

        async def look() -> list[Object] | None:
            pods = [p for p in await self.pods(role) if not p["metadata"].get("deletionTimestamp")]
            return pods if len(pods) == count else None

        if count == 0:

            async def none() -> bool:
                return not await self.pods(role)

            await until(none, f"no {role} pods of {self.name}")
            return []
        return list(await until(look, f"{count} {role} pods of {self.name}"))

    async def token(self) -> str:
        """The control token in its Secret."""

        async def look() -> Object | None:
            return await self.kubectl.get("secret", names.token(self.name))

        secret = await until(look, "the token")
        return base64.b64decode(secret["data"]["control"]).decode()

    async def pretend(self, role: Role, ordinal: int = 0, ip: str = "10.9.9.9", **container: Any) -> None:
        """Write a pod's status as a kubelet would: it runs and is ready, but for what `container` says."""
        ready = container.pop("ready", True)
        state = {
            "name": role.value,
            "image": "x",
            "imageID": "x",
            "ready": ready,
            "restartCount": 0,
            "state": {"running": {}},
        }
        status = {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": str(ready)},
            ],
            "containerStatuses": [state | container],
        }
        path = f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{names.pod(self.name, role, ordinal)}/status"
        await merge_patch(self.kubectl, path, {"status": status})


async def merge_patch(kubectl: Kubectl, path: str, patch: Object) -> None:
    """A merge patch of a subresource, which older kubectls cannot name."""
    configuration = client.Configuration()
    await config.load_kube_config(config_file=kubectl.kubeconfig, client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        answer = await api.rest_client.request(
            "PATCH",
            configuration.host + path,
            headers={"Content-Type": "application/merge-patch+json", "Accept": "application/json"},
            body=patch,
        )
        if answer.status >= 300:
            raise AssertionError(f"PATCH {path}: {answer.status} {(await answer.read())[:500]!r}")
        await answer.read()
