"""What goes wrong is told, on the job, and nothing hangs: bad specs, missing rights, quotas, an API server that goes away."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.conftest import Operators
from tests.cluster.jobs import Job, judges_rules, manifest
from tests.cluster.kubernetes import Kubectl, KubectlError, until
from tests.cluster.outage import Proxy
from tests.cluster.processes import LearnerDouble, OperatorProcess
from tests.unit.operator.builders import answer

from asyncppo_operator import names
from asyncppo_operator.kinds import LEASE
from asyncppo_operator.names import Role
from asyncppo_operator.rights import needed

# Specs that a server which asks the definition's rules refuses at once, and that the operator refuses where the server asks none.
# (name, changes of the spec, words of the message)
INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("two-models", {"model": {"builtin": {}, "pretrained": "x"}}, "exactly one of builtin and pretrained"),
    ("no-model", {"model": {}}, "exactly one of builtin and pretrained"),
    ("small-context", {"sampling": {"maxTokens": 300, "contextLength": 256}}, "maxTokens"),
    ("not-built", {"weightSync": {"transport": "NCCL"}}, "not implemented yet"),
    ("idle-devices", {"learner": {"resources": {"limits": {"example.org/gpu": 1}}}}, "not implemented yet"),
    ("long-warm-up", {"optimizer": {"warmupUpdates": 11}}, "warmupUpdates"),
    ("custom-environment", {"environment": {"type": "Custom"}}, "entrypoint"),
    ("lonely-group", {"algorithm": {"updates": 3, "groupSize": 1}}, "groupSize"),
    ("workers-for-nobody", {"oldLogit": {"replicas": 2}}, "oldLogit"),
]


async def test_invalid_specs_make_nothing_and_say_why(kubectl: Kubectl, operator: OperatorProcess) -> None:
    judges = await judges_rules(kubectl)
    for name, spec, words in INVALID:
        if judges:
            with pytest.raises(KubectlError, match=words):
                await kubectl.apply(manifest(name, **spec))
        else:
            await kubectl.apply(manifest(name, **spec))
    for name, _, words in () if judges else INVALID:
        job = Job(kubectl, name)
        await job.until_phase("Invalid")
        await job.until_condition("Accepted", "False", "InvalidSpec", words)
    for kind in ("statefulsets", "services", "persistentvolumeclaims", "poddisruptionbudgets"):
        assert await kubectl.list(kind) == [], kind
    mended = manifest("lonely-group", algorithm={"updates": 3, "groupSize": 2})
    await kubectl.apply(mended)
    await Job(kubectl, "lonely-group").until_phase("Pending")


async def test_a_name_that_services_cannot_have_is_refused(kubectl: Kubectl, operator: OperatorProcess) -> None:
    if await judges_rules(kubectl):
        with pytest.raises(KubectlError, match=r"metadata\.name.*a letter first"):
            await kubectl.apply(manifest("1st"))
    else:
        await kubectl.apply(manifest("1st"))
        await Job(kubectl, "1st").until_condition("Accepted", "False", "InvalidSpec", "a letter first")
    assert await kubectl.list("statefulsets") == []


async def test_a_running_job_edited_badly_keeps_running_and_says_so(
    kubectl: Kubectl, operator: OperatorProcess, loopback: str
) -> None:
    await kubectl.apply(manifest())
    job = Job(kubectl)
    await job.until_pods(Role.LEARNER, 1)
    learner = LearnerDouble(await job.token(), (await job.get())["metadata"]["uid"], answer())
    await learner.start(loopback, names.PORT)
    await job.pretend(Role.LEARNER, ip=loopback)
    await job.until_phase("Running")
    before = await kubectl.get("configmap", "guess-job")
    for edit, reason, words in (
        ({"seed": 5}, "ImmutableField", r"spec\.seed: .*was 0, now 5"),
        ({"seed": 0, "sampling": {"maxTokens": 300}}, "InvalidSpec", "maxTokens"),
    ):
        if await judges_rules(kubectl):
            with pytest.raises(KubectlError, match=words):
                await kubectl.patch("appo", "guess", {"spec": edit})
        else:
            await kubectl.patch("appo", "guess", {"spec": edit})
            found = await job.until_condition("Accepted", "False", reason)
            assert re.search(words, found["message"])
    assert await job.phase() == "Running"
    assert await kubectl.get("configmap", "guess-job") == before
    await kubectl.patch("appo", "guess", {"spec": {"sampling": None}})
    await job.until_condition("Accepted", "True")


async def test_an_overlay_the_server_refuses_is_told(kubectl: Kubectl, operator: OperatorProcess) -> None:
    overlay = {"spec": {"containers": [{"name": "rollout", "imagePolPolicy": "Always"}]}}
    await kubectl.apply(manifest(rollout={"template": overlay}))
    await Job(kubectl).until_condition("Reconciled", "False", "Rejected", "imagePolPolicy")


async def test_an_overlay_that_cannot_be_merged_is_told(kubectl: Kubectl, operator: OperatorProcess) -> None:
    await kubectl.apply(manifest(rollout={"template": {"spec": {"containers": [{"image": "x"}]}}}))
    await Job(kubectl).until_condition("Reconciled", "False", "InvalidTemplate", "need 'name'")


async def test_an_image_that_cannot_be_pulled_is_named(kubectl: Kubectl, operator: OperatorProcess) -> None:
    await kubectl.apply(manifest(learner={"image": "nowhere.invalid/learner:1"}))
    job = Job(kubectl)
    await job.until_pods(Role.LEARNER, 1)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    await job.pretend(Role.LEARNER, ready=False, state=waiting, image="nowhere.invalid/learner:1")
    found = await job.until_condition("LearnerReady", "False", "ImagePullBackOff")
    assert "nowhere.invalid/learner:1" in found["message"]
    assert (await job.status())["message"] == found["message"]


async def test_a_quota_that_forbids_pods_is_told(kubectl: Kubectl, operator: OperatorProcess) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await kubectl.apply(quota)

    async def counted() -> bool:
        found = await kubectl.get("resourcequota", "none")
        return bool(found and "pods" in (found.get("status") or {}).get("hard", {}))

    await until(counted, "the quota to be in force")
    await kubectl.apply(manifest())
    await Job(kubectl).until_condition("RolloutsReady", "False", "PodsNotCreated", "exceeded quota")


async def limited_kubeconfig(kubectl: Kubectl, folder: Path, rules: list[dict[str, Any]]) -> str:
    """A kubeconfig whose user has these rights in the namespace alone, and the right to ask which rights it has."""
    base = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    subject = {"kind": "ServiceAccount", "name": "limited", "namespace": kubectl.namespace}
    await kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "limited"}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "limited-token", "annotations": {"kubernetes.io/service-account.name": "limited"}},
        },
        {**base, "kind": "Role", "metadata": {"name": "limited"}, "rules": rules},
        {
            **base,
            "kind": "RoleBinding",
            "metadata": {"name": "limited"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"},
            "subjects": [subject],
        },
    )

    async def token() -> str:
        secret = await kubectl.get("secret", "limited-token")
        return str(((secret or {}).get("data") or {}).get("token") or "")

    found = await until(token, "the account's token")
    plain = (
        await kubectl.run("get", "secret", "limited-token", "-o", "go-template={{.data.token | base64decode}}")
    ).strip()
    assert found
    return with_token(kubectl.kubeconfig, plain, folder / "kubeconfig-limited")


def with_token(kubeconfig: str, token: str, made: Path) -> str:
    """The same server, another user."""
    config = yaml.safe_load(Path(kubeconfig).read_text())
    config["users"][0]["user"] = {"token": token}
    made.write_text(yaml.safe_dump(config))
    return str(made)


def rules_without(*missing: tuple[str, str]) -> list[dict[str, Any]]:
    """Every right the operator asks for but these (verb, resource)."""
    rules = [
        {
            "apiGroups": [resource.group],
            "resources": [f"{resource.plural}/{subresource}" if subresource else resource.plural],
            "verbs": [verb],
        }
        for resource, verb, subresource in needed()
        if (verb, resource.plural) not in missing
    ]
    return [*rules, {"apiGroups": [LEASE.group], "resources": [LEASE.plural], "verbs": list(LEASE.verbs)}]


async def test_the_rights_asked_for_are_enough(kubectl: Kubectl, operators: Operators, tmp_path: Path) -> None:
    operator = await operators.start(await limited_kubeconfig(kubectl, tmp_path, rules_without()))
    await kubectl.apply(manifest())
    await Job(kubectl).until_condition("RolloutsReady", "False", "Unschedulable")
    await Job(kubectl).until_condition("Reconciled", "True")
    assert await operator.unready() == ""


async def test_a_missing_right_to_make_is_told_on_the_job(
    kubectl: Kubectl, operators: Operators, tmp_path: Path
) -> None:
    rules = rules_without(("create", "statefulsets"), ("patch", "statefulsets"))
    operator = await operators.start(await limited_kubeconfig(kubectl, tmp_path, rules))
    await kubectl.apply(manifest())
    await Job(kubectl).until_condition("Reconciled", "False", "Forbidden", "statefulsets")
    events = await kubectl.list("events")
    assert any(e["reason"] == "Forbidden" for e in events if e["involvedObject"]["kind"] == "AsyncPPOJob")

    async def told() -> bool:
        return await operator.metric("asyncppo_operator_missing_rights", verb="create", resource="statefulsets") == 1

    await until(told, "the right in the metrics: all rights are asked for, one after the other")
    assert "create statefulsets" in await operator.unready()
    forbidden = await operator.metric("asyncppo_operator_reconciles_total", result="forbidden")
    assert forbidden is not None
    assert forbidden > 0


async def test_a_missing_right_to_look_is_told_and_nothing_is_done_blindly(
    kubectl: Kubectl, operators: Operators, tmp_path: Path
) -> None:
    rules = rules_without(("list", "pods"), ("watch", "pods"))
    await operators.start(await limited_kubeconfig(kubectl, tmp_path, rules))
    await kubectl.apply(manifest())
    await Job(kubectl).until_condition("Reconciled", "False", "Forbidden", "no right to list or watch pods")
    assert await kubectl.list("statefulsets") == []


async def test_a_missing_right_to_see_jobs_is_told_by_the_operator_itself(
    kubectl: Kubectl, operators: Operators, tmp_path: Path
) -> None:
    config = await limited_kubeconfig(
        kubectl, tmp_path, rules_without(("list", "asyncppojobs"), ("watch", "asyncppojobs"))
    )
    operator = await operators.start(config)

    async def told() -> bool:
        if operator.ended:
            return "asyncppojobs" in operator.log.read_text()
        return "list asyncppojobs" in await operator.unready()

    await until(told, "a word about the missing right")


async def test_an_api_server_that_goes_away_and_comes_back(
    kubectl: Kubectl, operators: Operators, tmp_path: Path, loopback: str
) -> None:
    proxy = Proxy(kubectl.kubeconfig)
    through = await proxy.start(tmp_path)
    operator = await operators.start(through, lease={"enabled": False})
    await kubectl.apply(manifest())
    job = Job(kubectl)
    await job.until_pods(Role.LEARNER, 1)
    learner = LearnerDouble(await job.token(), (await job.get())["metadata"]["uid"], answer())
    await learner.start(loopback, names.PORT)
    await job.pretend(Role.LEARNER, ip=loopback)
    await job.until_phase("Running")
    proxy.cut()

    async def unreachable() -> bool:
        return await operator.metric("asyncppo_operator_api_reachable") == 0

    await until(unreachable, "the outage in the metrics")
    assert "does not answer" in await operator.unready()
    asked = learner.asked
    await until(lambda: learner.asked > asked + 35, "the learner to be asked on during the outage")
    proxy.mend()
    await kubectl.patch("appo", "guess", {"spec": {"rollout": {"replicas": 3}}})
    await job.until_pods(Role.ROLLOUT, 3)
    await until(lambda: _event(kubectl, "ApiServerWasUnreachable"), "an event about the outage")
    await until(lambda: _ready(operator), "readiness")
    assert await job.phase() == "Running"
    await proxy.stop()


async def _event(kubectl: Kubectl, reason: str) -> bool:
    return any(event["reason"] == reason for event in await kubectl.list("events"))


async def _ready(operator: OperatorProcess) -> bool:
    return await operator.unready() == ""
