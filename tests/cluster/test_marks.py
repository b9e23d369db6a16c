"""A job's labels on a real API server: on every object, inherited or asked for, and changed without restarting a pod."""

from tests.cluster.jobs import Job, manifest
from tests.cluster.kubernetes import Kubectl, until
from tests.cluster.processes import OperatorProcess

from asyncppo_operator.names import Role

OBJECTS = (
    ("statefulset", "guess-learner"), ("statefulset", "guess-rollout"), ("service", "guess-learner"), ("service", "guess-rollout"),
    ("configmap", "guess-job"), ("secret", "guess-token"), ("serviceaccount", "guess-pods"),
    ("persistentvolumeclaim", "guess-learner-data"), ("networkpolicy", "guess-pods"), ("poddisruptionbudget", "guess-learner"),
    ("poddisruptionbudget", "guess-rollout"),
)  # fmt: skip


async def labels(kubectl: Kubectl, kind: str, name: str) -> dict[str, str]:
    """Of an object; none of one that is not there."""
    return dict(((await kubectl.get(kind, name)) or {}).get("metadata", {}).get("labels") or {})


async def test_labels_are_on_every_object_and_change_without_a_restart(
    kubectl: Kubectl, operator: OperatorProcess
) -> None:
    made = manifest(labels={"tier": "b"}, annotations={"note": "x"})
    made["metadata"]["labels"] = {"team": "a", "argocd.argoproj.io/instance": "app"}
    await kubectl.apply(made)
    job = Job(kubectl)
    await job.until_pods(Role.LEARNER, 1)
    await job.until_pods(Role.ROLLOUT, 2)
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in await job.pods()}
    for kind, name in OBJECTS:
        found = await labels(kubectl, kind, name)
        assert {"team": "a", "tier": "b"}.items() <= found.items(), f"{kind} {name}"
        assert "argocd.argoproj.io/instance" not in found
    for pod in await job.pods():
        assert pod["metadata"]["labels"]["team"] == "a"
    # a label alone raises no generation
    await kubectl.run("label", "appo", "guess", "team=c", "--overwrite")
    for kind, name in OBJECTS:
        if kind == "secret":
            continue  # made once

        async def changed(kind: str = kind, name: str = name) -> bool:
            return (await labels(kubectl, kind, name)).get("team") == "c"

        await until(changed, f"the label of {kind} {name}")
    await job.until_condition("Reconciled", "True")
    assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in await job.pods()} == before
    await kubectl.run("delete", "pod", "guess-rollout-1", "--wait=false")

    async def renewed() -> bool:
        pods = {pod["metadata"]["name"]: pod["metadata"] for pod in await job.pods(Role.ROLLOUT)}
        found = pods.get("guess-rollout-1", {})
        return found.get("uid") not in (None, before["guess-rollout-1"]) and found["labels"]["team"] == "c"

    await until(renewed, "a new pod with the new label")
