"""The operator is upgraded under a running job: definition and objects of an earlier version, then the ones of now. Nothing restarts."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import Operators
from tests.cluster.jobs import Job, merge_patch
from tests.cluster.kubernetes import ROOT, Kubectl, Object, until
from tests.cluster.processes import LearnerDouble, OperatorProcess
from tests.cluster.test_children import back, budget_api
from tests.earlier.objects import HERE, VERSIONS, moved, recorded
from tests.unit.operator.builders import answer

from asyncppo_operator import names
from asyncppo_operator.names import Role

TOKEN = "the-token"
PODS = {Role.LEARNER: 1, Role.ROLLOUT: 2, Role.OLD_LOGIT: 1}
NOW = "2026-01-02T03:04:05Z"


def define(path: Path) -> None:
    """The definition in a file or folder becomes the cluster's."""
    subprocess.run(["kubectl", "apply", "--validate=false", "-f", str(path)], check=True, capture_output=True)
    wait = ["kubectl", "wait", "--for=condition=Established", "crd/asyncppojobs.asyncppo.io", "--timeout=60s"]
    subprocess.run(wait, check=True, capture_output=True)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    """An earlier version, whose definition is in force until the test ends or says otherwise."""
    define(HERE / request.param / "crd.yaml")
    yield request.param
    define(ROOT / "crds")


async def as_the_earlier_operator_made_it(kubectl: Kubectl, version: str, loopback: str) -> tuple[Job, LearnerDouble]:
    """A job in phase Running, with that operator's objects, applied as it applied them."""
    raw, objects = recorded(version)
    await kubectl.apply({**raw, "metadata": {"name": raw["metadata"]["name"]}})
    job = Job(kubectl)
    uid = (await job.get())["metadata"]["uid"]
    policy = await budget_api(kubectl)
    for made in (moved(manifest, kubectl.namespace, uid) for manifest in objects):
        if made["kind"] == "PodDisruptionBudget":
            made["apiVersion"] = policy
        secret = made["kind"] == "Secret"
        how = ("create",) if secret else ("apply", "--server-side", f"--field-manager={names.FIELD_MANAGER}")
        await kubectl.run(*how, "-f", "-", stdin=json.dumps(made))
    for role, count in PODS.items():
        await job.until_pods(role, count)
    learner = LearnerDouble(TOKEN, uid, answer())
    await learner.start(loopback, names.PORT)
    await job.pretend(Role.LEARNER, ip=loopback)
    status = {
        "phase": "Running",
        "observedGeneration": 1,
        "startTime": NOW,
        "strategy": "Dedicated",
        "version": 3,
        "progress": {"update": 3, "updates": 10, "summary": "3/10"},
        "conditions": [
            {"type": "Reconciled", "status": "True", "reason": "UpToDate", "message": "x", "lastTransitionTime": NOW}
        ],
    }
    path = f"/apis/asyncppo.io/v1alpha1/namespaces/{kubectl.namespace}/asyncppojobs/guess/status"
    await merge_patch(kubectl, path, {"status": status})
    return job, learner


async def fingerprints(kubectl: Kubectl) -> dict[str, tuple[Any, ...]]:
    """What must not change of a job's children when an operator of another version takes over."""
    found: list[Object] = []
    for kind in ("statefulsets", "services", "configmaps", "secrets", "persistentvolumeclaims", "pods"):
        found += await kubectl.list(kind, names.MANAGED_SELECTOR)
    return {
        f"{o['kind']}/{o['metadata']['name']}": (
            o["metadata"]["uid"],
            o["metadata"].get("generation"),
            o.get("spec"),
            o.get("data"),
        )
        for o in found
    }


async def until_compared(operator: OperatorProcess) -> None:
    """Every object of the job was applied by this operator, each kind at least once."""

    async def applied() -> bool:
        kinds = ("StatefulSet", "Service", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget")
        asked = [
            await operator.metric("asyncppo_operator_api_requests_total", verb="apply", kind=kind, code="200")
            for kind in kinds
        ]
        return all(asked)

    await until(applied, "the operator to compare all objects")


async def test_a_running_job_is_taken_over_and_nothing_restarts(
    kubectl: Kubectl, operators: Operators, version: str, loopback: str
) -> None:
    job, learner = await as_the_earlier_operator_made_it(kubectl, version, loopback)
    before = await fingerprints(kubectl)
    assert len(before) == 3 + 3 + 1 + 1 + 1 + 4
    define(ROOT / "crds")
    learner.status = answer(update=8, version=8)
    operator = await operators.start()
    await until_compared(operator)
    await until(lambda: _progress(job, 8), "the learner to be asked by the new operator")
    await job.until_condition("Reconciled", "True")
    assert await fingerprints(kubectl) == before
    found = await job.get()
    assert found["spec"]["learner"]["adoptStorage"] is False, "the new definition's defaults are filled"
    assert (found["metadata"]["generation"], found["status"]["phase"]) == (1, "Running")
    claim = await kubectl.get("persistentvolumeclaim", names.storage("guess"))
    assert claim is not None
    assert found["status"]["storageUid"] == claim["metadata"]["uid"]

    await kubectl.run("scale", "appo", "guess", "--replicas=3")
    await job.until_pods(Role.ROLLOUT, 3)
    rollouts = await job.pods(Role.ROLLOUT)
    assert len({json.dumps(p["metadata"]["annotations"]) for p in rollouts}) == 1, "the new one is like the others"
    assert _uids([*await job.pods(Role.LEARNER), *rollouts]).items() >= _kept(before, "Pod/guess-rollout").items()

    rollout = await kubectl.get("statefulset", "guess-rollout")
    assert rollout is not None
    await kubectl.run("delete", "statefulset", "guess-rollout", "--cascade=orphan")
    again = await back(kubectl, "statefulset", "guess-rollout", rollout)
    assert again["spec"]["template"] == rollout["spec"]["template"], "what is deleted comes back as it was"
    assert _uids(await job.pods()).items() >= _kept(before, "Pod/").items()

    await kubectl.patch("appo", "guess", {"spec": {"suspend": True}})
    await job.until_phase("Suspended")
    await kubectl.patch("appo", "guess", {"spec": {"suspend": False}})
    for role, count in (PODS | {Role.ROLLOUT: 3}).items():
        for pod in await job.until_pods(role, count):
            assert pod["metadata"]["annotations"][names.ANNOTATION_RENDERING], "pods that start anew are of now"


async def _progress(job: Job, update: int) -> bool:
    return bool((await job.status()).get("progress", {}).get("update") == update)


def _uids(pods: list[Object]) -> dict[str, str]:
    return {f"Pod/{pod['metadata']['name']}": pod["metadata"]["uid"] for pod in pods}


def _kept(before: dict[str, tuple[Any, ...]], prefix: str) -> dict[str, str]:
    return {name: found[0] for name, found in before.items() if name.startswith(prefix)}


async def test_a_job_whose_volume_was_lost_before_the_upgrade_does_not_start_anew(
    kubectl: Kubectl, operators: Operators, version: str, loopback: str
) -> None:
    job, _ = await as_the_earlier_operator_made_it(kubectl, version, loopback)
    await kubectl.run("delete", "persistentvolumeclaim", names.storage("guess"))
    define(ROOT / "crds")
    await operators.start()
    await job.until_condition("Failed", "True", "StorageLost")
    await asyncio.sleep(1.0)
    assert await kubectl.get("persistentvolumeclaim", names.storage("guess")) is None
