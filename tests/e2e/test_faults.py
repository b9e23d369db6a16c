"""One long job, everything killed once: it completes, and its books balance."""

import asyncio
import os

import yaml
from tests.cluster.jobs import Job
from tests.cluster.kubernetes import ROOT, Kubectl, Object, conditions, until
from tests.e2e.conftest import shell

from asyncppo import faults
from asyncppo_operator import names
from asyncppo_operator.names import Role

LONG = 1500.0
STEP = 4
MARKS = "/tmp"
OUTAGE_SECONDS = 60.0


async def test_a_job_survives_everything(kubectl: Kubectl, release: Kubectl) -> None:
    await kubectl.apply(_long_job())
    job = Job(kubectl, "long")
    await _members(job, 2)
    await _kill_operator_in_mid_sync(kubectl, release)
    await _progress(job)

    await _kill(kubectl, names.pod("long", Role.ROLLOUT, 1))
    await _progress(job)
    await _members(job, 2)

    await _kill(kubectl, names.pod("long", Role.LEARNER, 0))
    await job.until_phase("Recovering")
    await _progress(job)

    await kubectl.run("scale", "appo", "long", "--replicas=4")
    await _members(job, 4)
    await _progress(job)
    await kubectl.run("scale", "appo", "long", "--replicas=1")
    await job.until_pods(Role.ROLLOUT, 1)
    await _progress(job)

    if os.environ.get("API_SERVER_STOP"):
        before = (await job.status())["progress"]["update"]
        await shell(os.environ["API_SERVER_STOP"])
        await asyncio.sleep(OUTAGE_SECONDS)
        await shell(os.environ["API_SERVER_START"])
        await until(lambda: _beyond(job, before + STEP), "updates made during and after the outage", LONG)

    await kubectl.patch("appo", "long", {"spec": {"suspend": True}})
    suspended = await job.until_phase("Suspended")
    assert await job.pods() == []
    held = suspended["status"]["progress"]["update"]
    await kubectl.patch("appo", "long", {"spec": {"suspend": False, "rollout": {"replicas": 2}}})
    await until(lambda: _beyond(job, held + STEP), "updates after resuming", LONG)

    await until(lambda: _over(job), "the end", LONG)
    status = await job.status()
    assert status["phase"] == "Complete", status
    assert status["ledger"]["balanced"] is True
    assert status["oldLogits"]["exactCoverage"] == 1.0
    assert status["oldLogits"]["violations"] == 0
    assert status["staleness"]["max"] <= 2
    assert status.get("failures") is None, "pods that were deleted are no failures of the program"


def _long_job() -> Object:
    made: Object = yaml.safe_load((ROOT / "examples" / "guess-number.yaml").read_text())
    made["metadata"] = {"name": "long"}
    made["spec"]["algorithm"] |= {"updates": 120, "batchGroups": 16}
    # A tool that takes half a second: however fast the machine, an update takes a second or more, and there is something left to do
    # when the last fault has happened.
    made["spec"]["environment"]["parameters"] = {"delaySeconds": 0.5}
    # In one sync one rollout does not begin to load until it is told to.
    fault = f"{names.pod('long', Role.ROLLOUT, 0)}:Load:before:hold@4"
    variables = [{"name": faults.VARIABLE, "value": fault}, {"name": faults.FOLDER, "value": MARKS}]
    made["spec"]["rollout"]["template"] = {"spec": {"containers": [{"name": Role.ROLLOUT.value, "env": variables}]}}
    return made


async def _kill_operator_in_mid_sync(kubectl: Kubectl, release: Kubectl) -> None:
    """While a rollout is paused and has not loaded yet: the next operator finds the sync open, and ends it."""
    inside = ("exec", names.pod("long", Role.ROLLOUT, 0), "--")

    async def held() -> bool:
        return "0.fired" in (await kubectl.run(*inside, "ls", MARKS)).split()

    async def operators() -> list[Object]:
        return await release.list("pods", "app.kubernetes.io/name=asyncppo-operator")

    async def replaced() -> bool:
        return any(
            pod["metadata"]["uid"] != killed and conditions(pod).get("Ready", {}).get("status") == "True"
            for pod in await operators()
        )

    await until(held, "a sync in which a rollout is held", LONG)
    pod = (await operators())[0]
    killed = pod["metadata"]["uid"]
    await _kill(release, pod["metadata"]["name"])
    await until(replaced, "the next operator", LONG)
    await kubectl.run(*inside, "touch", f"{MARKS}/0.go")


async def _kill(kubectl: Kubectl, pod: str) -> None:
    """At once, without a word."""
    await kubectl.run("delete", "pod", pod, "--grace-period=0", "--force")


async def _progress(job: Job) -> None:
    """A few more updates than now."""
    status = await job.status()
    now = (status.get("progress") or {}).get("update", 0)
    await until(lambda: _beyond(job, now + STEP), f"update {now + STEP}", LONG)


async def _beyond(job: Job, update: int) -> bool:
    status = await job.status()
    assert status.get("phase") != "Failed", status
    return bool((status.get("progress") or {}).get("update", 0) >= update)


async def _members(job: Job, count: int) -> None:
    async def look() -> bool:
        return bool(((await job.status()).get("versions") or {}).get("members") == count)

    await until(look, f"{count} rollouts in syncs", LONG)


async def _over(job: Job) -> bool:
    return await job.phase() in ("Complete", "Failed")
