"""A job's life on a real API server: made, run, scaled, suspended, finished, deleted. Pods are pretended, everything else is real."""

from dataclasses import dataclass

import pytest
from tests.cluster.jobs import Job, manifest
from tests.cluster.kubernetes import Kubectl, until
from tests.cluster.processes import LearnerDouble, OperatorProcess
from tests.unit.operator.builders import answer

from asyncppo_operator import names
from asyncppo_operator.names import Role


@dataclass
class Training:
    """A job whose learner answers."""

    job: Job
    learner: LearnerDouble


@pytest.fixture
async def training(kubectl: Kubectl, operator: OperatorProcess, loopback: str) -> Training:
    """A job in phase Running; its pods all seem to run."""
    await kubectl.apply(manifest())
    job = Job(kubectl)
    await job.until_pods(Role.LEARNER, 1)
    await job.until_pods(Role.ROLLOUT, 2)
    learner = LearnerDouble(await job.token(), (await job.get())["metadata"]["uid"], answer())
    await learner.start(loopback, names.PORT)
    await job.pretend(Role.LEARNER, ip=loopback)
    for ordinal in range(2):
        await job.pretend(Role.ROLLOUT, ordinal)
    await job.until_phase("Running")
    return Training(job, learner)


async def test_a_new_job_gets_its_objects_and_says_what_it_waits_for(
    kubectl: Kubectl, operator: OperatorProcess
) -> None:
    await kubectl.apply(manifest())
    job = Job(kubectl)
    await job.until_condition("RolloutsReady", "False", "Unschedulable", "2/2 rollout pods Unschedulable")

    async def counted() -> bool:
        told = [e["message"] for e in await kubectl.list("events") if e["reason"] == "Unschedulable"]
        return [m for m in told if m.startswith("RolloutsReady: ")][:2] == [
            next((m for m in told if m.startswith("RolloutsReady: 2/2")), "")
        ]

    await until(counted, "one event about rollouts, which counts both")
    status = await job.status()
    assert (status["phase"], status["observedGeneration"], status["strategy"]) == ("Pending", 1, "Interruption")
    for kind, name in (
        ("statefulset", "guess-learner"), ("statefulset", "guess-rollout"), ("service", "guess-learner"),
        ("configmap", "guess-job"), ("secret", "guess-token"), ("serviceaccount", "guess-pods"),
        ("persistentvolumeclaim", "guess-learner-data"), ("networkpolicy", "guess-pods"),
        ("poddisruptionbudget", "guess-learner"),
    ):  # fmt: skip
        found = await kubectl.get(kind, name)
        assert found is not None, f"{kind} {name}"
        assert found["metadata"]["ownerReferences"][0]["name"] == "guess"
    events = await kubectl.list("events")
    ours = {event["reason"] for event in events if event["involvedObject"]["kind"] == "AsyncPPOJob"}
    assert {"Accepted", "Unschedulable"} <= ours
    assert "finalizers" not in (await job.get())["metadata"], "deleting a job must never wait for the operator"


async def test_a_running_job_shows_its_figures(training: Training, operator: OperatorProcess) -> None:
    job = training.job
    status = await job.status()
    assert status["version"] == 3
    assert status["rollouts"]["summary"] == "2/2"
    training.learner.status = answer(update=7, version=7)
    await until(lambda: _progress(job, "7/10"), "progress 7/10")
    line = await job.kubectl.run("get", "appo", "guess", "-o", "wide", "--no-headers")
    assert "Running" in line
    assert "7/10" in line
    assert "0.50 (max 1)" in line
    assert await operator.metric("asyncppo_operator_job_policy_version", asyncppo_job="guess") == 7
    assert await operator.metric("asyncppo_operator_job_token_staleness_versions_count") == 20
    assert await operator.metric("asyncppo_operator_job_version_skew_versions") == 5


async def _progress(job: Job, summary: str) -> bool:
    return bool((await job.status()).get("progress", {}).get("summary") == summary)


async def test_a_complete_job_gives_its_pods_back_and_keeps_what_it_made(training: Training) -> None:
    training.learner.status = answer("Complete", update=10, version=10)
    job = training.job
    await job.until_phase("Complete")
    await job.until_pods(Role.LEARNER, 0)
    await job.until_pods(Role.ROLLOUT, 0)
    assert await job.kubectl.get("persistentvolumeclaim", "guess-learner-data") is not None
    assert await job.kubectl.get("statefulset", "guess-learner") is None
    status = await job.status()
    assert status["message"] == "10 of 10 updates done"
    assert status["progress"]["update"] == 10
    await job.kubectl.run("wait", "--for=condition=Complete", "appo/guess", "--timeout=5s")


async def test_a_finished_job_is_deleted_in_time_and_leaves_no_series(
    training: Training, operator: OperatorProcess
) -> None:
    job = training.job
    await job.kubectl.patch("appo", "guess", {"spec": {"ttlSecondsAfterFinished": 2}})
    training.learner.status = answer("Complete", update=10)
    await until(lambda: _gone(job.kubectl, "appo", "guess"), "the job's deletion")
    await until(lambda: _gone(job.kubectl, "persistentvolumeclaim", "guess-learner-data"), "the volume's deletion")

    async def silent() -> bool:
        return not any(("asyncppo_job", "guess") in labels for _, labels in await operator.metrics())

    await until(silent, "no series of a deleted job")


async def _gone(kubectl: Kubectl, kind: str, name: str) -> bool:
    return await kubectl.get(kind, name) is None


async def test_rollouts_scale_through_the_jobs_own_subresource(training: Training) -> None:
    job = training.job
    await job.kubectl.run("scale", "appo", "guess", "--replicas=4")
    await job.until_pods(Role.ROLLOUT, 4)
    await until(lambda: _rollouts(job, "2/4"), "2/4 rollouts")
    await job.kubectl.run("scale", "appo", "guess", "--replicas=1")
    await job.until_pods(Role.ROLLOUT, 1)
    await until(lambda: _rollouts(job, "1/1"), "1/1 rollouts")
    assert await job.phase() == "Running"


async def _rollouts(job: Job, summary: str) -> bool:
    return bool((await job.status()).get("rollouts", {}).get("summary") == summary)


async def test_suspended_and_resumed(training: Training) -> None:
    job = training.job
    claim = await job.kubectl.get("persistentvolumeclaim", "guess-learner-data")
    await job.kubectl.patch("appo", "guess", {"spec": {"suspend": True}})
    await job.until_phase("Suspended")
    assert await job.pods() == []
    await job.until_condition("Suspended", "True")
    events = [e["reason"] for e in await job.kubectl.list("events") if e["involvedObject"]["kind"] == "AsyncPPOJob"]
    assert "Suspending" in events, "the workers were asked to hand over first"
    await job.kubectl.patch("appo", "guess", {"spec": {"suspend": False}})
    await job.until_pods(Role.LEARNER, 1)
    await job.until_pods(Role.ROLLOUT, 2)
    again = await job.kubectl.get("persistentvolumeclaim", "guess-learner-data")
    assert claim is not None
    assert again is not None
    assert again["metadata"]["uid"] == claim["metadata"]["uid"], "the ledger is on it"


async def test_a_crash_is_counted_and_too_many_end_the_job_with_the_cause(training: Training) -> None:
    job = training.job
    dead = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "no memory left", "containerID": "x"}}
    await job.pretend(Role.ROLLOUT, 1, restartCount=1, lastState=dead)

    async def counted() -> bool:
        return bool((await job.status()).get("failures") == {"rollout": 1})

    await until(counted, "one failure")
    await job.pretend(Role.ROLLOUT, 1, restartCount=4, lastState=dead)
    failed = await job.until_phase("Failed")
    assert "guess-rollout-1" in failed["status"]["message"]
    assert failed["status"]["firstFailure"]["reason"] == "OOMKilled"
    await job.until_condition("Failed", "True", "BackoffLimitExceeded", "no memory left")
    await job.until_pods(Role.ROLLOUT, 0)


async def test_changed_resources_recreate_the_roles_pods(training: Training) -> None:
    job = training.job
    before = {p["metadata"]["name"]: p["metadata"]["uid"] for p in await job.pods()}
    await job.kubectl.patch("appo", "guess", {"spec": {"rollout": {"resources": {"requests": {"cpu": "250m"}}}}})

    async def recreated() -> bool:
        now = {p["metadata"]["name"]: p["metadata"]["uid"] for p in await job.pods()}
        return len(now) == 3 and all(now[f"guess-rollout-{n}"] != before[f"guess-rollout-{n}"] for n in range(2))

    await until(recreated, "new rollout pods")
    learner = (await job.pods(Role.LEARNER))[0]
    assert learner["metadata"]["uid"] == before["guess-learner-0"]


async def test_a_deleted_job_takes_all_with_it_and_its_name_can_be_used_again(training: Training) -> None:
    job, kubectl = training.job, training.job.kubectl
    old = (await job.get())["metadata"]["uid"]
    await kubectl.run("delete", "appo", "guess", "--wait=false")
    await kubectl.apply(manifest())
    await job.until_phase("Pending")

    async def all_new() -> bool:
        found = [*await kubectl.list("statefulsets"), *await kubectl.list("persistentvolumeclaims")]
        found += [s for s in await kubectl.list("secrets") if s["metadata"]["name"] == "guess-token"]
        owners = {o["metadata"]["ownerReferences"][0]["uid"] for o in found}
        return len(found) == 4 and len(owners) == 1 and old not in owners

    await until(all_new, "objects of the new job alone")
    await job.until_condition("Reconciled", "True")


async def test_edits_of_others_are_put_right(training: Training) -> None:
    kubectl = training.job.kubectl
    await kubectl.run("scale", "statefulset", "guess-rollout", "--replicas=0")
    await training.job.until_pods(Role.ROLLOUT, 2)
    await kubectl.run("delete", "statefulset", "guess-rollout")
    await training.job.until_pods(Role.ROLLOUT, 2)
