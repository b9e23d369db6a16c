"""kubectl apply trains: the packaged chart, the example, a Prometheus that sees it, and a job that runs to its end."""

import asyncio
import math

import pytest
import yaml
from tests.cluster.jobs import Job, manifest
from tests.cluster.kubernetes import ROOT, Kubectl, Object, until
from tests.e2e import dashboards
from tests.e2e.conftest import RELEASE, SYSTEM, helm
from tests.e2e.prometheus import Prometheus

from asyncppo.api.correction import Strategy
from asyncppo_operator.names import Role

LONG = 1200.0


async def test_the_example_trains_to_completion_and_every_graph_shows_it(
    kubectl: Kubectl, prometheus: Prometheus
) -> None:
    await helm("test", RELEASE, "-n", SYSTEM, "--timeout", "120s")
    example = yaml.safe_load((ROOT / "examples" / "guess-number.yaml").read_text())
    name, updates = example["metadata"]["name"], example["spec"]["algorithm"]["updates"]
    await kubectl.apply(example)
    job = Job(kubectl, name)
    phases = asyncio.create_task(_phases(job))
    await until(lambda: _update(job, 12), "a dozen updates", LONG)

    assert {f"{name}-learner-0", f"{name}-rollout-0", f"{name}-rollout-1"} <= await _all_up(prometheus, 4)
    empty = await _queries_without_data(prometheus, kubectl.namespace, name)
    assert empty == []
    assert await prometheus.firing() == []
    for variable, source in dashboards.variables(kubectl.namespace):
        assert await prometheus.query(source), variable

    seen = await asyncio.wait_for(phases, LONG)
    assert seen == ["Pending", "Running", "Complete"]
    status = await job.status()
    assert status["progress"]["update"] == updates
    assert status["oldLogits"]["exactCoverage"] == 1.0
    assert status["oldLogits"]["violations"] == 0
    assert status["ledger"]["balanced"] is True
    batch = example["spec"]["algorithm"]["groupSize"] * example["spec"]["algorithm"]["batchGroups"]
    assert status["ledger"]["trained"] == updates * batch
    assert 0 < status["staleness"]["mean"] <= status["staleness"]["max"] <= example["spec"]["staleness"]["maxVersions"]
    assert status["reward"]["last"] >= 0.6, "from random weights to what the local run reaches"
    await job.until_pods(Role.LEARNER, 0)
    await job.until_pods(Role.ROLLOUT, 0)
    line = await kubectl.run("get", "appo", name, "-o", "wide", "--no-headers")
    assert "Complete" in line
    assert f"{updates}/{updates}" in line


async def _phases(job: Job) -> list[str]:
    """Every phase the job is seen in, in order, until it is over."""
    seen: list[str] = []
    while not seen or seen[-1] not in ("Complete", "Failed"):
        phase = await job.phase()
        if phase and (not seen or seen[-1] != phase):
            seen.append(phase)
        await asyncio.sleep(0.3)
    return seen


async def _update(job: Job, update: int) -> bool:
    status = await job.status()
    assert status.get("phase") != "Failed", status
    return bool((status.get("progress") or {}).get("update", 0) >= update)


async def _all_up(prometheus: Prometheus, count: int) -> set[str]:
    async def look() -> set[str]:
        up = await prometheus.up()
        return set(up) if len(up) >= count and all(up.values()) else set()

    return set(await until(look, "every pod to be scraped"))


async def _queries_without_data(prometheus: Prometheus, namespace: str, job: str) -> list[str]:
    """Panels of the dashboards that have no finite value, though they were given the time that rates need."""
    left = list(dashboards.queries(namespace, job))
    for _ in range(30):
        missing = []
        for where, expression in left:
            if not any(math.isfinite(value) for value in await prometheus.query(expression)):
                missing.append((where, expression))
        left = missing
        if not left:
            break
        await asyncio.sleep(2)
    return [f"{where}: {expression}" for where, expression in left]


async def test_what_cannot_start_says_why_within_seconds(kubectl: Kubectl) -> None:
    await kubectl.apply(
        manifest("no-image", learner={"image": "nowhere.invalid/learner:1"}),
        manifest(
            "no-room", rollout={"resources": {"requests": {"nvidia.com/gpu": 8}, "limits": {"nvidia.com/gpu": 8}}}
        ),
        manifest(
            "crashes", learner={"template": {"spec": {"containers": [{"name": "learner", "args": ["--job", "/none"]}]}}}
        ),
    )
    pulled = await Job(kubectl, "no-image").until_condition("LearnerReady", "False", text="nowhere.invalid/learner:1")
    assert pulled["reason"] in ("ErrImagePull", "ImagePullBackOff")
    placed = await Job(kubectl, "no-room").until_condition("RolloutsReady", "False", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in placed["message"]
    failed = await _until_failed(Job(kubectl, "crashes"))
    assert "crashes-learner-0" in failed["message"]
    assert failed["firstFailure"]["role"] == "learner"
    assert "required" in failed["firstFailure"]["message"], "the program's own last words"


async def _until_failed(job: Job) -> Object:
    async def look() -> Object | None:
        status = await job.status()
        return status if status.get("phase") == "Failed" else None

    return dict(await until(look, "the failure after backoffLimit", 300))


async def test_rollouts_on_vllm_train_too(kubectl: Kubectl) -> None:
    made = _small("guess-number-vllm", updates=8)
    made["spec"]["rollout"]["replicas"] = 1
    await kubectl.apply(made)
    status = await _complete(Job(kubectl, made["metadata"]["name"]))
    assert status["oldLogits"]["exactCoverage"] == 1.0
    assert status["oldLogits"]["violations"] == 0


async def test_old_logit_workers_are_pods_and_one_may_die(kubectl: Kubectl) -> None:
    made = _small("guess-number-dedicated", updates=40)
    # A tool that takes a second: however fast the machine, the job is still there when its worker has been killed.
    made["spec"]["environment"]["parameters"] = {"delaySeconds": 1.0}
    made["spec"]["oldLogits"] |= {"auditFraction": 0.0}
    made["spec"]["oldLogit"] |= {"unavailableAfterSeconds": 900}
    await kubectl.apply(made)
    job = Job(kubectl, made["metadata"]["name"])
    await until(lambda: _update(job, 3), "updates", LONG)
    await job.until_condition("OldLogitsReady", "True")
    worker = (await job.until_pods(Role.OLD_LOGIT, 1))[0]["metadata"]["name"]
    await kubectl.run("delete", "pod", worker, "--grace-period=0", "--force")
    status = await _complete(job)
    assert status["oldLogits"]["exactCoverage"] == 1.0
    assert status["oldLogits"]["fallbacks"] == 0


@pytest.mark.parametrize(
    "old_logits",
    [
        pytest.param({"strategy": "Interruption", "scoring": "Overlapped"}, id="overlapped"),
        pytest.param({"strategy": "Snapshot", "snapshot": {"medium": "Memory"}}, id="snapshot-memory"),
        pytest.param({"strategy": "Snapshot", "snapshot": {"medium": "Disk"}}, id="snapshot-disk"),
        *(pytest.param({"strategy": one.value}, id=one.lower()) for one in Strategy if not one.exact),
    ],
)
async def test_other_strategies_train_on_the_cluster_too(kubectl: Kubectl, old_logits: Object) -> None:
    """Every form that no other test here runs; one job after the other, for one alone keeps a small machine busy."""
    made = _small("guess-number", updates=4)  # more than the staleness bound, so that old tokens are trained as well
    made["spec"]["oldLogits"] = old_logits
    await kubectl.apply(made)
    status = await _complete(Job(kubectl, made["metadata"]["name"]))
    exact = Strategy(old_logits["strategy"]).exact
    condition = {c["type"]: c for c in status["conditions"]}["Exact"]
    told = status["oldLogits"]
    assert (told["violations"], told["fallbacks"]) == (0, 0)
    if exact:
        assert (condition["status"], condition["reason"]) == ("True", "VersionMatched")
        assert (told["exact"], told["exactCoverage"], told["summary"]) == (True, 1.0, "100%")
    else:
        assert (condition["status"], condition["reason"]) == ("False", "ApproximateStrategy")
        assert (told["exact"], told["exactCoverage"], told["summary"]) == (False, 0.0, "No")
    batch = made["spec"]["algorithm"]["groupSize"] * made["spec"]["algorithm"]["batchGroups"]
    assert status["ledger"]["trained"] == 4 * batch


async def _complete(job: Job) -> Object:
    """The status at the end, which is a good one."""
    await until(lambda: _over(job), f"the end of {job.name}", LONG)
    status = await job.status()
    assert status["phase"] == "Complete", status
    assert status["ledger"]["balanced"] is True
    return status


async def _over(job: Job) -> bool:
    return await job.phase() in ("Complete", "Failed")


def _small(example: str, updates: int) -> Object:
    """An example, small."""
    made: Object = yaml.safe_load((ROOT / "examples" / f"{example}.yaml").read_text())
    made["spec"]["algorithm"] |= {"updates": updates, "batchGroups": 4}
    made["spec"]["optimizer"] |= {"warmupUpdates": 1}
    return made
