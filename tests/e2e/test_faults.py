"""One long job, everything killed once: it completes, and its books balance."""

import asyncio
import os

import yaml
from tests.cluster.jobs import Job
from tests.cluster.kubernetes import ROOT, Kubectl, Object, until
from tests.e2e.conftest import shell

from asyncppo_operator import names
from asyncppo_operator.names import Role

LONG = 1500.0
STEP = 4
OUTAGE_SECONDS = 60.0


async def test_a_job_survives_everything(kubectl: Kubectl, release: Kubectl) -> None:
    await kubectl.apply(_long_job())
    job = Job(kubectl, "long")
    await _progress(job)

    await _kill(kubectl, names.pod("long", Role.ROLLOUT, 1))
    await _progress(job)
    await _members(job, 2)

    await _kill(kubectl, names.pod("long", Role.LEARNER, 0))
    await job.until_phase("Recovering")
    await _progress(job)

    operator = (await release.list("pods", "app.kubernetes.io/name=asyncppo-operator"))[0]["metadata"]["name"]
    await _kill(release, operator)
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
    return made


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
