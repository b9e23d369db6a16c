"""A job's objects on a real API server: those of others are left alone, the job's own come back, and a volume that is lost is told."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.cluster.conftest import Operators
from tests.cluster.jobs import Job, manifest
from tests.cluster.kubernetes import Kubectl, Object, until
from tests.cluster.processes import LearnerDouble, OperatorProcess
from tests.cluster.test_trouble import limited_kubeconfig, rules_without
from tests.unit.operator.builders import answer

from asyncppo_operator import names
from asyncppo_operator.names import Role

SECONDS = 20.0
"""In which a deleted object is back, with the whole machine busy; the resync period is 300 s."""


def plain(kind: str, api: str, name: str, **content: Any) -> Object:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **content}


def stateful(name: str) -> Object:
    labels = {"app": "theirs"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    spec = {"replicas": 0, "serviceName": "x", "selector": {"matchLabels": labels}, "template": template}
    return plain("StatefulSet", "apps/v1", name, spec=spec)


# One of each kind of child, as somebody else may have made it, by the name that the job of this name wants for its own.
FOREIGN: dict[str, Callable[[str, str], Object]] = {
    "service": lambda job, _: plain(
        "Service",
        "v1",
        names.workload(job, Role.LEARNER),
        spec={"ports": [{"port": 80}], "selector": {"app": "theirs"}},
    ),
    "configmap": lambda job, _: plain("ConfigMap", "v1", names.config(job), data={"theirs": "yes"}),
    "secret": lambda job, _: plain("Secret", "v1", names.token(job), stringData={"token": "theirs"}),
    "serviceaccount": lambda job, _: plain("ServiceAccount", "v1", names.account(job)),
    "persistentvolumeclaim": lambda job, _: plain(
        "PersistentVolumeClaim",
        "v1",
        names.storage(job),
        spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    ),
    "networkpolicy": lambda job, _: plain(
        "NetworkPolicy",
        "networking.k8s.io/v1",
        names.policy(job),
        spec={"podSelector": {"matchLabels": {"app": "theirs"}}},
    ),
    "poddisruptionbudget": lambda job, policy: plain(
        "PodDisruptionBudget",
        policy,
        names.workload(job, Role.ROLLOUT),
        spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "theirs"}}},
    ),
    "statefulset": lambda job, _: stateful(names.workload(job, Role.ROLLOUT)),
}
KINDS = {
    "service": ["guess-learner", "guess-rollout"],
    "configmap": ["guess-job"],
    "secret": ["guess-token"],
    "serviceaccount": ["guess-pods"],
    "networkpolicy": ["guess-pods"],
    "poddisruptionbudget": ["guess-learner", "guess-rollout"],
    "statefulset": ["guess-learner", "guess-rollout"],
}


async def budget_api(kubectl: Kubectl) -> str:
    served = (await kubectl.run("api-versions")).split()
    return "policy/v1" if "policy/v1" in served else "policy/v1beta1"


def theirs(found: Object | None) -> Object:
    """What nobody but its owner may change of an object."""
    assert found is not None
    metadata = {key: found["metadata"].get(key) for key in ("uid", "labels", "ownerReferences")}
    return {"metadata": metadata, "spec": found.get("spec"), "data": found.get("data")}


async def test_a_name_that_is_somebody_elses_is_told_and_left_alone(
    kubectl: Kubectl, operator: OperatorProcess
) -> None:
    policy = await budget_api(kubectl)
    made = {kind: make(kind, policy) for kind, make in FOREIGN.items()}
    await kubectl.apply(*made.values())
    before = {kind: theirs(await kubectl.get(kind, made[kind]["metadata"]["name"])) for kind in FOREIGN}
    await kubectl.apply(*(manifest(kind) for kind in FOREIGN))
    for kind, foreign in made.items():
        name = f"{foreign['kind']} {foreign['metadata']['name']}"
        await Job(kubectl, kind).until_condition("Reconciled", "False", "NameTaken", name)
        assert await kubectl.list("all", f"{names.LABEL_JOB}={kind}") == [], "nothing is made before all names are free"
    told = [e for e in await kubectl.list("events") if e["reason"] == "NameTaken"]
    assert {e["involvedObject"]["name"] for e in told} == set(FOREIGN)
    await kubectl.run("delete", "appo", "--all")
    await asyncio.sleep(2.0)  # garbage collection would take what had been adopted
    for kind, foreign in made.items():
        assert theirs(await kubectl.get(kind, foreign["metadata"]["name"])) == before[kind]


async def test_a_job_goes_on_when_the_name_is_free(kubectl: Kubectl, operator: OperatorProcess) -> None:
    await kubectl.apply(FOREIGN["secret"]("guess", ""), FOREIGN["configmap"]("guess", ""))
    await kubectl.apply(manifest())
    job = Job(kubectl)
    found = await job.until_condition("Reconciled", "False", "NameTaken", "ConfigMap guess-job")
    assert "Secret guess-token" in found["message"], "all of them are told at once"
    assert (await job.status())["message"] == found["message"]
    await kubectl.run("delete", "secret/guess-token", "configmap/guess-job")
    await job.until_pods(Role.ROLLOUT, 2)
    await job.until_condition("Reconciled", "True")


async def running(kubectl: Kubectl, loopback: str) -> Job:
    """A job whose learner answers; its pods all seem to run."""
    await kubectl.apply(manifest())
    job = Job(kubectl)
    await job.until_pods(Role.LEARNER, 1)
    learner = LearnerDouble(await job.token(), (await job.get())["metadata"]["uid"], answer())
    await learner.start(loopback, names.PORT)
    await job.pretend(Role.LEARNER, ip=loopback)
    await job.until_phase("Running")
    return job


async def back(kubectl: Kubectl, kind: str, name: str, before: Object, seconds: float = SECONDS) -> Object:
    """Wait until another object has the name."""

    async def look() -> Object | None:
        found = await kubectl.get(kind, name)
        return found if found is not None and found["metadata"]["uid"] != before["metadata"]["uid"] else None

    return dict(await until(look, f"{kind} {name} to be made again", seconds))


async def all_objects(kubectl: Kubectl) -> dict[tuple[str, str], Object]:
    found = {(kind, name): await kubectl.get(kind, name) for kind, called in KINDS.items() for name in called}
    return {identity: made for identity, made in found.items() if made is not None}


async def test_what_is_deleted_comes_back_within_seconds(
    kubectl: Kubectl, operator: OperatorProcess, loopback: str
) -> None:
    job = await running(kubectl, loopback)
    before = await all_objects(kubectl)
    assert len(before) == sum(len(called) for called in KINDS.values())
    for (kind, name), made in before.items():
        await kubectl.run("delete", kind, name, "--wait=false")
        again = await back(kubectl, kind, name, made)
        assert again["metadata"]["ownerReferences"][0]["name"] == "guess"
        assert again.get("data") == made.get("data"), "the same token, the same manifest"
        if kind != "statefulset":
            assert await job.phase() == "Running"
    await job.until_condition("Reconciled", "True")


async def test_what_is_deleted_while_no_operator_is_there_comes_back_with_the_next(
    kubectl: Kubectl, operator: OperatorProcess, loopback: str
) -> None:
    job = await running(kubectl, loopback)
    before = await all_objects(kubectl)
    await operator.kill()
    for kind, name in before:
        await kubectl.run("delete", kind, name, "--wait=false")
    await operator.start()
    for (kind, name), made in before.items():
        again = await back(kubectl, kind, name, made, 60.0)
        assert again.get("data") == made.get("data"), "the token that the pods hold, the same manifest"
    await job.until_condition("Reconciled", "True")


async def test_an_object_of_somebody_else_in_the_place_of_the_jobs_own_is_left_alone(
    kubectl: Kubectl, operator: OperatorProcess, loopback: str
) -> None:
    job = await running(kubectl, loopback)
    await operator.kill()
    await kubectl.run("delete", "service", "guess-learner")
    await kubectl.apply(FOREIGN["service"]("guess", ""))
    before = theirs(await kubectl.get("service", "guess-learner"))
    await operator.start()
    await job.until_condition("Reconciled", "False", "NameTaken", "Service guess-learner")
    assert theirs(await kubectl.get("service", "guess-learner")) == before
    assert await job.phase() == "Running"
    await kubectl.patch("appo", "guess", {"spec": {"backoffLimit": 0}})
    await job.pretend(
        Role.ROLLOUT, restartCount=1, lastState={"terminated": {"exitCode": 1, "containerID": "x", "reason": "Error"}}
    )
    await job.until_phase("Failed")
    await job.until_pods(Role.ROLLOUT, 0)
    assert theirs(await kubectl.get("service", "guess-learner")) == before, "nor is it deleted with the workloads"


CLAIM = names.storage("guess")


@pytest.mark.parametrize("restarted", [False, True], ids=["watched", "after a restart"])
async def test_a_lost_volume_ends_the_job_and_nothing_starts_anew(
    kubectl: Kubectl, operator: OperatorProcess, loopback: str, restarted: bool
) -> None:
    job = await running(kubectl, loopback)
    if restarted:
        await operator.kill()
    await kubectl.run("delete", "persistentvolumeclaim", CLAIM)
    if restarted:
        await operator.start()
    await job.until_phase("Failed")
    found = await job.until_condition("Failed", "True", "StorageLost", "learner.adoptStorage")
    assert CLAIM in found["message"]
    await job.until_pods(Role.LEARNER, 0)
    await job.until_pods(Role.ROLLOUT, 0)
    assert await kubectl.get("persistentvolumeclaim", CLAIM) is None
    assert await kubectl.list("statefulsets") == []


async def test_a_suspended_job_whose_volume_is_lost_does_not_start_anew_when_it_is_resumed(
    kubectl: Kubectl, operator: OperatorProcess
) -> None:
    await kubectl.apply(manifest(suspend=True))
    job = Job(kubectl)
    await job.until_phase("Suspended")
    await until(lambda: _has_storage(job), "the claim to be noted")
    await operator.kill()
    await kubectl.run("delete", "persistentvolumeclaim", CLAIM)
    await kubectl.patch("appo", "guess", {"spec": {"suspend": False}})
    await operator.start()
    await job.until_condition("Failed", "True", "StorageLost")
    assert await kubectl.get("persistentvolumeclaim", CLAIM) is None
    assert await job.pods() == []


async def _has_storage(job: Job) -> bool:
    return bool((await job.status()).get("storageUid"))


async def test_a_volume_that_was_kept_is_adopted_only_when_the_job_asks_for_it(
    kubectl: Kubectl, operator: OperatorProcess
) -> None:
    await kubectl.apply(manifest(learner={"retainStorage": True}))
    job = Job(kubectl)
    await job.until_condition("Reconciled", "True")
    await kubectl.run("delete", "appo", "guess")
    await until(lambda: _none(kubectl, "statefulset"), "the job's objects to go")
    kept = theirs(await kubectl.get("persistentvolumeclaim", CLAIM))
    await kubectl.apply(manifest())
    await job.until_condition("Reconciled", "False", "NameTaken", "learner.adoptStorage: true")
    assert theirs(await kubectl.get("persistentvolumeclaim", CLAIM)) == kept
    await kubectl.patch("appo", "guess", {"spec": {"learner": {"adoptStorage": True}}})
    await job.until_condition("Reconciled", "True")
    adopted = theirs(await kubectl.get("persistentvolumeclaim", CLAIM))
    uid = (await job.get())["metadata"]["uid"]
    assert adopted["metadata"]["uid"] == kept["metadata"]["uid"]
    assert adopted["metadata"]["labels"][names.LABEL_UID] == uid
    assert adopted["metadata"]["ownerReferences"][0]["uid"] == uid, "without retainStorage it goes with this job"


async def _none(kubectl: Kubectl, kind: str) -> bool:
    return await kubectl.list(kind) == []


async def test_an_operator_with_a_right_to_look_missing_says_which(
    kubectl: Kubectl, operators: Operators, tmp_path: Any
) -> None:

    rules = rules_without(("list", "secrets"), ("watch", "secrets"))
    await operators.start(await limited_kubeconfig(kubectl, tmp_path, rules))
    await kubectl.apply(manifest())
    await Job(kubectl).until_condition("Reconciled", "False", "Forbidden", "no right to list or watch secrets")
    assert await kubectl.list("statefulsets") == []
