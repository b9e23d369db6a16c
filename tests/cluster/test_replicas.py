"""The operator itself dies, restarts, is one of two: no job is disturbed and nothing is forgotten."""

from typing import Any

from tests.cluster.conftest import Operators
from tests.cluster.jobs import Job, manifest
from tests.cluster.kubernetes import Kubectl, Object, until
from tests.cluster.processes import LearnerDouble, OperatorProcess
from tests.unit.operator.builders import answer

from asyncppo_operator import names
from asyncppo_operator.names import Role

SHORT = {"durationSeconds": 6}
"""Of a Lease that another is to take over soon; a machine that is busy renews it within a third of this."""
DEAD = {"terminated": {"exitCode": 1, "reason": "Error", "message": "first words", "containerID": "x"}}


async def fingerprints(kubectl: Kubectl) -> dict[str, tuple[Any, ...]]:
    """What must not change of a job's children when an operator starts anew."""
    found: list[Object] = []
    for kind in ("statefulsets", "services", "configmaps", "persistentvolumeclaims", "pods"):
        found += await kubectl.list(kind, names.MANAGED_SELECTOR)
    return {
        f"{o['kind']}/{o['metadata']['name']}": (o["metadata"]["uid"], o["metadata"].get("generation"), o.get("spec"))
        for o in found
    }


async def running(kubectl: Kubectl, loopback: str) -> tuple[Job, LearnerDouble]:
    await kubectl.apply(manifest())
    job = Job(kubectl)
    await job.until_pods(Role.LEARNER, 1)
    await job.until_pods(Role.ROLLOUT, 2)
    learner = LearnerDouble(await job.token(), (await job.get())["metadata"]["uid"], answer())
    await learner.start(loopback, names.PORT)
    await job.pretend(Role.LEARNER, ip=loopback)
    await job.until_phase("Running")
    return job, learner


async def test_a_restarted_operator_disturbs_nothing_and_forgets_nothing(
    kubectl: Kubectl, operator: OperatorProcess, loopback: str
) -> None:
    job, learner = await running(kubectl, loopback)
    await job.pretend(Role.ROLLOUT, 1, restartCount=2, lastState=DEAD)

    async def counted(expected: int) -> bool:
        return bool((await job.status()).get("failures", {}).get("rollout") == expected)

    await until(lambda: counted(2), "two failures")
    before, status = await fingerprints(kubectl), await job.status()
    await operator.kill()
    learner.status = answer(update=8, version=8)
    await operator.start()
    await until(lambda: _progress(job, 8), "the learner to be asked by the new operator")
    assert await fingerprints(kubectl) == before
    again = await job.status()
    assert again["failures"] == {"rollout": 2}, "restarts that were counted are not counted again"
    for key in ("startTime", "firstFailure", "phase"):
        assert again[key] == status[key]
    await job.pretend(Role.ROLLOUT, 1, restartCount=3, lastState=DEAD)
    await until(lambda: counted(3), "a third failure")


async def _progress(job: Job, update: int) -> bool:
    return bool((await job.status()).get("progress", {}).get("update") == update)


async def test_two_replicas_one_works_and_the_other_takes_over(
    kubectl: Kubectl, operators: Operators, loopback: str
) -> None:
    first = await operators.start(name="first", lease=SHORT)
    await until(lambda: _leads(first), "the first to lead")
    second = await operators.start(name="second", lease=SHORT)
    assert await second.unready() == "", "who waits for its turn is ready"
    job, learner = await running(kubectl, loopback)
    assert not await _leads(second)
    before = await fingerprints(kubectl)
    await first.kill()
    await until(lambda: _leads(second), "the second to take over")
    learner.status = answer(update=9, version=9)
    await until(lambda: _progress(job, 9), "the second to do the work")
    assert await fingerprints(kubectl) == before
    lease = await kubectl.get("lease", "asyncppo-operator")
    assert lease is not None
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("second", 1)


async def test_who_is_ended_in_good_order_gives_the_lease_back(kubectl: Kubectl, operator: OperatorProcess) -> None:
    await until(lambda: _leads(operator), "the Lease")
    assert await operator.end() == 0
    lease = await kubectl.get("lease", "asyncppo-operator")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


async def test_who_loses_the_lease_stops(kubectl: Kubectl, operator: OperatorProcess) -> None:
    await until(lambda: _leads(operator), "the Lease")
    thief = {"spec": {"holderIdentity": "thief", "renewTime": "2100-01-01T00:00:00.000000Z"}}
    await kubectl.patch("lease", "asyncppo-operator", thief)
    await until(lambda: operator.ended, "the operator's end")
    assert await operator.end() == 1


async def test_a_job_created_while_no_operator_is_there_is_picked_up(kubectl: Kubectl, operators: Operators) -> None:
    await kubectl.apply(manifest("early"))
    operator = await operators.start()
    await Job(kubectl, "early").until_phase("Pending")
    await operator.kill()
    await kubectl.run("delete", "appo", "early", "--wait=false")

    async def gone() -> bool:
        return await kubectl.get("appo", "early") is None

    await until(gone, "a deletion that needs no operator")
    await kubectl.apply(manifest("late"))
    await operator.start()
    await Job(kubectl, "late").until_phase("Pending")
    await until(lambda: _series(operator), "series of the jobs that are there alone")


async def _series(operator: OperatorProcess) -> bool:
    jobs = {dict(labels).get("asyncppo_job") for _, labels in await operator.metrics()} - {None}
    return jobs == {"late"}


async def _leads(operator: OperatorProcess) -> bool:
    return await operator.metric("asyncppo_operator_leader") == 1
