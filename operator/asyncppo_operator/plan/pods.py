"""The pod template of a role: what all roles have in common, then the role's command, then the user's overlay.

Owns the template. Security: no root, read-only root file system, no capabilities, no API token. Does not own the StatefulSet
around it (`workloads.py`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.roles import EngineType, RoleSpec
from asyncppo.errors import UserError
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan.overlay import merge
from asyncppo_operator.settings import Settings

Object = dict[str, Any]

MODULES = {
    Role.LEARNER: "asyncppo_runtime.learner",
    Role.ROLLOUT: "asyncppo_runtime.rollout",
    Role.OLD_LOGIT: "asyncppo_runtime.old_logit",
}
# A GPU process group shares tensors through /dev/shm; a container's own is 64 MB.
SHM_GPU = "16Gi"
SHM_CPU = "1Gi"
GRACE_MARGIN = 5.0


def role_spec(job: AsyncPPOJob, role: Role) -> RoleSpec:
    """The role's part of the spec."""
    return {Role.LEARNER: job.spec.learner, Role.ROLLOUT: job.spec.rollout, Role.OLD_LOGIT: job.spec.old_logit}[role]


def template_hash(job: AsyncPPOJob, role: Role) -> str:
    """Hash of what a user can change of a running role's pods: image, resources, overlay.

    Not of the rendered template: an operator upgrade that renders differently must not restart training.
    """
    spec = role_spec(job, role)
    content = [spec.image, spec.resources.model_dump(mode="json"), spec.template]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Held:
    """A pod spec as another operator rendered it, and what that called its rendering; empty: it had no name for it."""

    spec: Object
    rendering: str


def pod_template(
    job: AsyncPPOJob, role: Role, settings: Settings, held: Held | None = None, single: bool = False
) -> Object:
    """The role's PodTemplateSpec, around the pod spec that is `held`, if one is. UserError when the overlay cannot be merged.

    single: the job's Secret holds one token for every role, as it did before roles had their own; its programs, whose images were pinned
    then, know neither a key of a role nor a port for metrics alone.
    """
    name = job.metadata.name
    merged = merge(base_template(job, role, settings, single), role_spec(job, role).template)
    metadata = _object(merged, "metadata")
    # after the overlay: what selects and tells pods apart is not the user's to change
    metadata["labels"] = {
        **_object(metadata, "labels", "metadata."),
        **names.labels(name, role),
        names.LABEL_UID: job.metadata.uid,
    }
    metadata["annotations"] = {
        **_object(metadata, "annotations", "metadata."),
        names.ANNOTATION_TEMPLATE: template_hash(job, role),
    }
    spec = _with_quantities_as_text(_object(merged, "spec")) if held is None else held.spec
    if called := rendering(spec) if held is None else held.rendering:
        metadata["annotations"][names.ANNOTATION_RENDERING] = called
    return {**merged, "metadata": metadata, "spec": spec}


def rendering(spec: Mapping[str, Any]) -> str:
    """What a rendered pod spec is called: as long as the job's part of it is the same, another name means another operator's."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def base_template(job: AsyncPPOJob, role: Role, settings: Settings, single: bool = False) -> Object:
    """What the overlay is merged over. single: see `pod_template`."""
    labels = names.labels(job.metadata.name, role)
    return {"metadata": {"labels": labels}, "spec": _pod_spec(job, role, settings, single)}


def _object(parent: Mapping[str, Any], key: str, path: str = "") -> Object:
    """The object at a key; empty when there is none. UserError for something else."""
    value = parent.get(key) or {}
    if not isinstance(value, Mapping):
        raise UserError(f"template.{path}{key}: must be an object as in a PodTemplateSpec")
    return dict(value)


def _pod_spec(job: AsyncPPOJob, role: Role, settings: Settings, single: bool) -> Object:
    name = job.metadata.name
    spec: Object = {
        "serviceAccountName": names.account(name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(settings.timing.grace_seconds),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.USER_ID,
            "runAsGroup": names.USER_ID,
            "fsGroup": names.USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, role, settings, single)],
        "volumes": [
            {"name": "job", "configMap": {"name": names.config(name)}},
            *_token_volumes(name, role, single),
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shm_size(role_spec(job, role))}},
            _data_volume(name, role),
        ],
    }
    if role is not Role.LEARNER and not single:
        spec["initContainers"] = [_token_maker(job, role, settings)]
    if settings.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in settings.images.pull_secrets]
    return spec


def _token_volumes(name: str, role: Role, single: bool) -> list[Object]:
    """Where the program finds its token. A worker's is made by its init container, which alone sees the role's key: whoever has that
    is every member of the role, and workers run code of environments."""
    secret: Object = {"secretName": names.token(name), "defaultMode": 0o440}
    if single:
        return [{"name": "token", "secret": secret}]
    if role is Role.LEARNER:
        file = names.TOKEN_FILE.rsplit("/", 1)[1]
        return [{"name": "token", "secret": {**secret, "items": [{"key": names.CONTROL_KEY, "path": file}]}}]
    file = names.ROLE_KEY_FILE.rsplit("/", 1)[1]
    return [
        {"name": "token", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "role-key", "secret": {**secret, "items": [{"key": role.value, "path": file}]}},
    ]


def _token_maker(job: AsyncPPOJob, role: Role, settings: Settings) -> Object:
    """The init container that makes the worker's own token. It asks for what the worker asks for, which costs nothing: they never run
    at the same time, and quotas and limit ranges that the worker passes it passes too."""
    worker = _container(job, role, settings)
    made: Object = {
        "name": "token",
        "image": worker["image"],
        "imagePullPolicy": worker["imagePullPolicy"],
        "command": ["python", "-P", "-m", "asyncppo.wire.tokens"],
        "args": [
            "--key-file", names.ROLE_KEY_FILE,
            "--role", role.value,
            "--name", "$(POD_NAME)",
            "--output", names.TOKEN_FILE,
        ],
        "env": _environment(),
        "securityContext": worker["securityContext"],
        "terminationMessagePolicy": worker["terminationMessagePolicy"],
        "volumeMounts": [
            {"name": "role-key", "mountPath": names.ROLE_KEY_FILE.rsplit("/", 1)[0], "readOnly": True},
            {"name": "token", "mountPath": names.TOKEN_FILE.rsplit("/", 1)[0]},
        ],
    }  # fmt: skip
    if "resources" in worker:
        made["resources"] = worker["resources"]
    return made


def _data_volume(name: str, role: Role) -> Object:
    if role is Role.LEARNER:
        return {"name": "data", "persistentVolumeClaim": {"claimName": names.storage(name)}}
    return {"name": "data", "emptyDir": {}}


def _shm_size(spec: RoleSpec) -> str:
    wanted = {**spec.resources.requests, **spec.resources.limits}
    return SHM_GPU if any("gpu" in resource for resource in wanted) else SHM_CPU


def _container(job: AsyncPPOJob, role: Role, settings: Settings, single: bool = False) -> Object:
    spec = role_spec(job, role)
    container: Object = {
        "name": role.value,
        "image": spec.image or default_image(job, role, settings),
        "imagePullPolicy": settings.images.pull_policy,
        "command": ["python", "-P", "-m", MODULES[role]],
        "args": _arguments(job, role, settings, single),
        "env": _environment(),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in ((names.PORT_NAME, names.PORT), (names.METRICS_PORT_NAME, names.METRICS_PORT))
            if not (single and port == names.METRICS_PORT)
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # the end of the log becomes the termination message: the root cause in the job's status
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "job", "mountPath": names.JOB_FILE.rsplit("/", 1)[0], "readOnly": True},
            {"name": "token", "mountPath": names.TOKEN_FILE.rsplit("/", 1)[0], "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "data", "mountPath": names.DATA_DIRECTORY},
        ],
        **_probes(),
    }
    resources = {
        key: dict(value)
        for key, value in (("requests", spec.resources.requests), ("limits", spec.resources.limits))
        if value
    }
    if resources:
        container["resources"] = resources
    return container


def _with_quantities_as_text(spec: Object) -> Object:
    """The pod spec with `cpu: 2` as `cpu: "2"`: servers of version 1.20 take no number for a quantity in an apply."""
    made = dict(spec)
    for kind in ("containers", "initContainers"):
        if isinstance(made.get(kind), list):
            made[kind] = [_container_with_text(container) for container in made[kind]]
    return made


def _container_with_text(container: Object) -> Object:
    resources = container.get("resources") if isinstance(container, Mapping) else None
    if not isinstance(resources, Mapping):
        return container
    told = dict(resources)
    for key in ("requests", "limits"):
        if isinstance(told.get(key), Mapping):
            told[key] = {name: str(amount) for name, amount in told[key].items()}
    return {**container, "resources": told}


def default_image(job: AsyncPPOJob, role: Role, settings: Settings) -> str:
    """The image of a role whose spec names none; a rollout's holds the engine that the job samples with."""
    images = settings.images
    rollout = {EngineType.TORCH: images.rollout, EngineType.VLLM: images.rollout_vllm}[job.spec.rollout.engine.type]
    return {Role.LEARNER: images.learner, Role.ROLLOUT: rollout, Role.OLD_LOGIT: images.old_logit}[role]


def _arguments(job: AsyncPPOJob, role: Role, settings: Settings, single: bool) -> list[str]:
    common = [
        "--job", names.JOB_FILE,
        "--directory", names.DATA_DIRECTORY,
        "--listen", f"0.0.0.0:{names.PORT}",
        "--token-file", names.TOKEN_FILE,
    ]  # fmt: skip
    if not single:
        common += ["--metrics-listen", f"0.0.0.0:{names.METRICS_PORT}"]
    if role is Role.LEARNER:
        return common
    worker = [
        *common,
        "--learner", names.learner_url(job.metadata.name),
        "--advertise", f"http://$(POD_IP):{names.PORT}",
        "--name", "$(POD_NAME)",
    ]  # fmt: skip
    if role is Role.ROLLOUT:
        # a little less than the pod's own, so that the program ends by itself
        worker += ["--grace-seconds", f"{max(1.0, settings.timing.grace_seconds - GRACE_MARGIN):g}"]
    return worker


def _environment() -> list[Object]:
    def field(name: str, path: str) -> Object:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    return [
        field("POD_NAME", "metadata.name"),
        field("POD_IP", "status.podIP"),
        # caches of libraries go to the role's own volume: the root file system is read-only
        {"name": "HOME", "value": f"{names.DATA_DIRECTORY}/home"},
        {"name": "HF_HOME", "value": f"{names.DATA_DIRECTORY}/home/huggingface"},
    ]


def _probes() -> Mapping[str, Object]:
    def get(path: str) -> Object:
        return {"httpGet": {"path": path, "port": names.PORT_NAME}, "timeoutSeconds": 5}

    # programs serve /healthz as soon as the model is built, whatever they wait for; a large model takes its time: half an hour
    return {
        "startupProbe": {**get("/healthz"), "periodSeconds": 5, "failureThreshold": 360},
        "livenessProbe": {**get("/healthz"), "periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {**get("/readyz"), "periodSeconds": 5, "failureThreshold": 2},
    }
