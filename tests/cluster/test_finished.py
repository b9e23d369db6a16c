"""A job that is over on a real API server: what it says of itself, which edits it follows, and that a complete one can go on."""

from tests.cluster.jobs import Job
from tests.cluster.kubernetes import conditions, until
from tests.cluster.test_life import Training, training  # noqa: F401 (a fixture)
from tests.unit.operator.builders import answer

from asyncppo_operator.names import Role

CLAIM = ("persistentvolumeclaim", "guess-learner-data")


async def finish(made: Training, phase: str = "Complete") -> Job:
    """Its pods are gone, and it has said so."""
    made.learner.status = answer(phase, update=10, version=10, message="the loss is NaN")
    job = made.job
    await job.until_phase(phase)
    await job.until_pods(Role.LEARNER, 0)
    await job.until_pods(Role.ROLLOUT, 0)
    await job.until_condition("RolloutsReady", "False", f"Job{phase}", "no rollout pods")
    return job


async def test_a_complete_job_says_what_is(training: Training) -> None:  # noqa: F811
    job = await finish(training)
    found = {kind: one["status"] for kind, one in conditions(await job.get()).items()}
    assert found == {
        "Ready": "True", "Accepted": "True", "Reconciled": "True", "LearnerReady": "False", "RolloutsReady": "False",
        "SyncHealthy": "Unknown", "Exact": "True", "LedgerBalanced": "True", "EnvironmentHealthy": "True",
        "Suspended": "False", "Complete": "True", "Failed": "False",
    }  # fmt: skip
    assert (await job.status())["rollouts"]["summary"] == "0/0"
    warnings = [e for e in await job.kubectl.list("events") if e["type"] == "Warning" and "Ready:" in e["message"]]
    assert not [e for e in warnings if "job is complete" in e["message"]]
    await job.kubectl.run("wait", "--for=condition=Ready", "appo/guess", "--timeout=5s")


async def test_a_complete_run_goes_on_when_updates_is_raised(training: Training) -> None:  # noqa: F811
    job = await finish(training)
    claim = await job.kubectl.get(*CLAIM)
    await training.learner.stop()
    await job.kubectl.patch("appo", "guess", {"spec": {"algorithm": {"updates": 20}}})
    await job.until_phase("Pending")
    await job.until_condition("Accepted", "True", text="from update 10 to 20")
    await job.until_condition("Complete", "False", "NotOver")
    await job.until_pods(Role.LEARNER, 1)
    await job.until_pods(Role.ROLLOUT, 2)
    assert "completionTime" not in await job.status()
    again = await job.kubectl.get(*CLAIM)
    assert claim is not None
    assert again is not None
    assert again["metadata"]["uid"] == claim["metadata"]["uid"], "the checkpoints are on it"
    manifest = await job.kubectl.get("configmap", "guess-job")
    assert manifest is not None
    assert '"updates": 20' in manifest["data"]["job.json"] or '"updates":20' in manifest["data"]["job.json"]


async def test_a_run_whose_volume_was_deleted_does_not_begin_anew(training: Training) -> None:  # noqa: F811
    job = await finish(training)
    await job.kubectl.run("delete", "/".join(CLAIM), "--wait=false")

    async def gone() -> bool:
        return await job.kubectl.get(*CLAIM) is None

    await until(gone, "the volume's deletion")
    await job.kubectl.patch("appo", "guess", {"spec": {"algorithm": {"updates": 20}}})
    await job.until_condition("Accepted", "False", "JobFinished", "volume")
    assert await job.phase() == "Complete"
    assert await job.kubectl.get(*CLAIM) is None


async def test_an_edit_of_a_failed_job_says_that_nothing_happens(training: Training) -> None:  # noqa: F811
    job = await finish(training, "Failed")
    await job.kubectl.patch("appo", "guess", {"spec": {"activeDeadlineSeconds": 300}})
    await job.until_condition(
        "Accepted", "False", "JobFinished", "spec.activeDeadlineSeconds changed after the job was Failed"
    )
    status = await job.status()
    assert (status["phase"], "the loss is NaN" in status["message"]) == ("Failed", True)

    async def told() -> bool:
        return any(event["reason"] == "JobFinished" for event in await job.kubectl.list("events"))

    await until(told, "an event")
    await job.kubectl.patch("appo", "guess", {"spec": {"activeDeadlineSeconds": None}})
    await job.until_condition("Accepted", "True")


async def test_the_volume_of_a_finished_job_can_still_be_kept(training: Training) -> None:  # noqa: F811
    job = await finish(training)
    await job.kubectl.patch("appo", "guess", {"spec": {"learner": {"retainStorage": True}}})

    async def owners(count: int) -> bool:
        found = await job.kubectl.get(*CLAIM)
        return found is not None and len(found["metadata"].get("ownerReferences") or []) == count

    await until(lambda: owners(0), "a volume without an owner")
    await job.kubectl.patch("appo", "guess", {"spec": {"learner": {"retainStorage": False}}})
    await until(lambda: owners(1), "a volume that goes with its job")
    assert conditions(await job.get())["Accepted"]["status"] == "True"
