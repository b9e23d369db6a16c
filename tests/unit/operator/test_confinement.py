"""Confined templates reach nothing of the node's nor of others'; what is refused is named by its path; unconfined, all is as it was."""

from typing import Any

import pytest
from tests.unit.operator.builders import SETTINGS, raw_job
from tests.unit.operator.test_planner import accepted

from asyncppo.api.status import Phase
from asyncppo_operator.plan.acceptance import Ended, accept
from asyncppo_operator.settings import Images, Settings, TemplateSettings

CONFINED = Settings(templates=TemplateSettings(confine=True, secrets=["hf"]), images=Images(pull_secrets=["hub"]))
POD = "spec.rollout.template.spec"


def in_container(name: str = "rollout", **fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": name, **fields}]}}


def volume(**kind: Any) -> dict[str, Any]:
    return {"spec": {"volumes": [{"name": "v", **kind}]}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (volume(hostPath={"path": "/"}), f"{POD}.volumes[v].hostPath"),
    (volume(csi={"driver": "x"}), f"{POD}.volumes[v].csi"),
    (volume(nfs={"server": "x"}), f"{POD}.volumes[v].nfs"),
    (volume(secret={"secretName": "admin"}), f"{POD}.volumes[v].secret.secretName"),
    (volume(secret={"secretName": "guess-token"}), f"{POD}.volumes[v].secret.secretName"),
    (volume(projected={"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "admin"}}]}),
     f"{POD}.volumes[v].projected.sources[1].secret.name"),
    ({"spec": {"volumes": [{"name": "token", "secret": {"secretName": "admin"}}]}}, f"{POD}.volumes[token].secret.secretName"),
    ({"spec": {"volumes": [{"name": "tmp", "hostPath": {"path": "/tmp"}}]}}, f"{POD}.volumes[tmp].hostPath"),
    ({"spec": {"hostNetwork": True}}, f"{POD}.hostNetwork"),
    ({"spec": {"hostPID": True}}, f"{POD}.hostPID"),
    ({"spec": {"hostIPC": True}}, f"{POD}.hostIPC"),
    ({"spec": {"serviceAccountName": "admin"}}, f"{POD}.serviceAccountName"),
    ({"spec": {"serviceAccountName": None}}, f"{POD}.serviceAccountName"),
    ({"spec": {"serviceAccount": "admin"}}, f"{POD}.serviceAccount"),
    ({"spec": {"imagePullSecrets": [{"name": "admin"}]}}, f"{POD}.imagePullSecrets[1].name"),
    ({"spec": {"securityContext": {"runAsUser": 0}}}, f"{POD}.securityContext.runAsUser"),
    ({"spec": {"securityContext": {"runAsNonRoot": False}}}, f"{POD}.securityContext.runAsNonRoot"),
    ({"spec": {"securityContext": None}}, f"{POD}.securityContext.runAsNonRoot"),
    ({"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}, f"{POD}.securityContext.seccompProfile"),
    ({"spec": {"securityContext": {"sysctls": [{"name": "a", "value": "b"}]}}}, f"{POD}.securityContext.sysctls"),
    ({"spec": {"$patch": "replace", "containers": []}}, f"{POD}.serviceAccountName"),
    ({"$patch": "replace", "spec": {"containers": []}}, f"{POD}.serviceAccountName"),
    (in_container(securityContext={"privileged": True}), f"{POD}.containers[rollout].securityContext.privileged"),
    (in_container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
     f"{POD}.containers[rollout].securityContext.capabilities.add"),
    (in_container(securityContext=None), f"{POD}.containers[rollout].securityContext.allowPrivilegeEscalation"),
    (in_container(securityContext={"runAsUser": 0}), f"{POD}.containers[rollout].securityContext.runAsUser"),
    (in_container(securityContext={"procMount": "Unmasked"}), f"{POD}.containers[rollout].securityContext.procMount"),
    (in_container("side", image="x"), f"{POD}.containers[side].securityContext.allowPrivilegeEscalation"),
    (in_container(ports=[{"containerPort": 9, "hostPort": 9}]), f"{POD}.containers[rollout].ports[2].hostPort"),
    (in_container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "admin", "key": "k"}}}]),
     f"{POD}.containers[rollout].env[A].valueFrom.secretKeyRef.name"),
    (in_container(envFrom=[{"secretRef": {"name": "admin"}}]), f"{POD}.containers[rollout].envFrom[0].secretRef.name"),
    ({"spec": {"initContainers": [{"name": "i", "securityContext": {"privileged": True}}]}},
     f"{POD}.initContainers[i].securityContext.privileged"),
    ({"spec": {"ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "admin"}}]}]}},
     f"{POD}.ephemeralContainers[e].envFrom[0].secretRef.name"),
    ({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/rollout": "unconfined"}}},
     "spec.rollout.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/rollout]"),
]  # fmt: skip

HARMLESS = {"allowPrivilegeEscalation": False}
TAKEN: list[dict[str, Any]] = [
    {},
    {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}}},
    {"spec": {"nodeSelector": {"gpu": "yes"}, "tolerations": [{"key": "gpu"}], "priorityClassName": "high"}},
    {"spec": {"hostNetwork": False, "serviceAccountName": "guess-pods"}},
    {"spec": {"imagePullSecrets": [{"name": "hub"}, {"name": "hf"}]}},
    volume(emptyDir={}),
    volume(configMap={"name": "x"}),
    volume(persistentVolumeClaim={"claimName": "data-set"}),
    volume(secret={"secretName": "hf"}),
    in_container(env=[{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}]),
    in_container("side", image="x", securityContext=HARMLESS),
    in_container(image="mine:1", securityContext={"runAsUser": 1000}),
    {"spec": {"containers": "nonsense"}},
    {"spec": {"containers": [{"image": "no name"}]}},
]


@pytest.mark.parametrize(("overlay", "path"), REFUSED, ids=lambda part: part if isinstance(part, str) else "")
def test_what_reaches_too_far_is_refused_by_its_path(overlay: dict[str, Any], path: str) -> None:
    made = accept(raw_job(rollout={"template": overlay}), None, CONFINED)
    assert (made.job, made.reason) == (None, "TemplateNotAllowed")
    assert path in made.message
    assert "confines templates" in made.message


@pytest.mark.parametrize("overlay", TAKEN)
def test_what_stays_with_the_job_is_taken(overlay: dict[str, Any]) -> None:
    assert accept(raw_job(rollout={"template": overlay}), None, CONFINED).accepted


@pytest.mark.parametrize("overlay", [overlay for overlay, _ in REFUSED])
def test_by_default_templates_are_not_confined(overlay: dict[str, Any]) -> None:
    assert accept(raw_job(rollout={"template": overlay}), None, SETTINGS).accepted


@pytest.mark.parametrize("field", ["learner", "rollout", "oldLogit"])
def test_every_role_is_looked_at(field: str) -> None:
    made = accept(raw_job(**{field: {"template": volume(hostPath={"path": "/"})}}), None, CONFINED)
    assert f"spec.{field}.template.spec.volumes[v].hostPath" in made.message


def test_annotations_of_the_job_are_looked_at_too() -> None:
    name = "container.apparmor.security.beta.kubernetes.io/rollout"
    assert f"spec.annotations[{name}]" in accept(raw_job(annotations={name: "unconfined"}), None, CONFINED).message
    assert accept(raw_job(annotations={"note": "x"}), None, CONFINED).accepted


def test_a_running_job_edited_to_reach_too_far_runs_on_as_it_was() -> None:
    before = accepted(CONFINED)
    made = accept(raw_job(rollout={"template": {"spec": {"hostPID": True}}, "replicas": 5}), before, CONFINED)
    assert made.reason == "TemplateNotAllowed"
    assert made.job is not None
    assert made.job.spec.rollout.template == {}
    assert made.job.spec.rollout.replicas == 5, "what may change still does"


def test_what_was_taken_before_is_not_run_on_when_templates_are_confined() -> None:
    reaching = {"rollout": {"template": {"spec": {"hostPID": True}}}}
    before = accepted(SETTINGS, **reaching)
    assert accept(raw_job(**reaching), before, CONFINED).job is None
    assert accept(raw_job(), before, CONFINED).accepted, "edited, it runs on"


def test_a_finished_job_stays_finished_and_goes_on_only_confined() -> None:
    reaching = {"rollout": {"template": {"spec": {"hostPID": True}}}}
    ran, ended = accepted(SETTINGS, **reaching), Ended(Phase.COMPLETE, 10)
    assert accept(raw_job(**reaching), ran, CONFINED, ended).job == ran
    more = accept(raw_job(**reaching, algorithm={"updates": 20}), ran, CONFINED, ended)
    assert (more.reason, more.job) == ("TemplateNotAllowed", ran)
