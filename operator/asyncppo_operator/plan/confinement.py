"""What a template overlay may not reach when the administrator confines templates: the node, other accounts, other Secrets, root.

Owns the judgement of the merged pod against the one the operator renders: only what an overlay adds is refused. Does not own the merge
(`overlay.py`), nor what a namespace's admission policies refuse besides. ConfigMaps and volume claims of the namespace stay open to a
template.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.problems import Problem
from asyncppo.errors import UserError
from asyncppo_operator.names import Role
from asyncppo_operator.plan.overlay import merge
from asyncppo_operator.plan.pods import base_template, role_spec
from asyncppo_operator.settings import Settings

Found = tuple[str, str]
"""A path below the pod's spec and what is wrong with what is there."""

# Volumes that hold nothing of the node's; a CSI, NFS or iSCSI volume written into a pod names servers and Secrets of its own.
VOLUMES = frozenset(
    {"emptyDir", "configMap", "downwardAPI", "persistentVolumeClaim", "ephemeral", "projected", "secret", "image"}
)
CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# Annotations of a pod by which older clusters take its profiles away.
PROFILES = (
    "container.apparmor.security.beta.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
    "container.seccomp.",
)


def template_problems(job: AsyncPPOJob, role: Role, field: str, settings: Settings) -> list[Problem]:
    """What the overlay of a role reaches and may not, where templates are confined. `field`: the role's name below `spec`."""
    overlay = role_spec(job, role).template
    if not settings.templates.confine or not overlay:
        return []
    base = base_template(job, role, settings)
    try:
        merged = merge(base, overlay)
    except UserError:
        return []  # it cannot be rendered, and so reaches nothing; the rendering says why
    allowed = settings.templates.secrets
    own = set(_found(base, base, allowed))
    added = [found for found in _found(merged, base, allowed) if found not in own]
    return [_problem(f"spec.{field}.template.{path}", what) for path, what in added]


def annotation_problems(job: AsyncPPOJob, settings: Settings) -> list[Problem]:
    """The same of the job's own annotations, which its pods carry too."""
    if not settings.templates.confine:
        return []
    return [_problem(f"spec.annotations[{name}]", what) for name, what in _profiles(job.spec.annotations)]


def _problem(path: str, what: str) -> Problem:
    remedy = "remove it, or ask who installed the operator (the chart's jobs.templates)"
    return Problem(path, f"{what}; this cluster confines templates", remedy)


def _found(template: Mapping[str, Any], base: Mapping[str, Any], allowed: Collection[str]) -> Iterator[Found]:
    for name, what in _profiles(_map(_map(template.get("metadata")).get("annotations"))):
        yield f"metadata.annotations[{name}]", what
    spec = _map(template.get("spec"))
    for path, what in _of_pod(spec, _map(base["spec"]), allowed):
        yield f"spec.{path}", what


def _profiles(annotations: Mapping[str, Any]) -> Iterator[Found]:
    for name in annotations:
        if str(name).startswith(PROFILES):
            yield str(name), "sets a security profile of the pod"


def _of_pod(spec: Mapping[str, Any], base: Mapping[str, Any], allowed: Collection[str]) -> Iterator[Found]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key) not in (None, False):
            yield key, "shares the node's own"
    account = base["serviceAccountName"]
    # the older name of the same field
    for key, value in (
        ("serviceAccountName", spec.get("serviceAccountName")),
        ("serviceAccount", spec.get("serviceAccount", account)),
    ):
        if value != account:
            yield key, f"the pods' account is {account}"
    for index, secret in enumerate(_maps(spec.get("imagePullSecrets"))):
        yield from _secret(f"imagePullSecrets[{index}].name", secret.get("name"), allowed)
    for volume in _maps(spec.get("volumes")):
        yield from _of_volume(volume, allowed)
    yield from _of_security("securityContext", _map(spec.get("securityContext")))
    if _map(spec.get("securityContext")).get("runAsNonRoot") is not True:
        yield "securityContext.runAsNonRoot", "must be true"
    for kind in CONTAINERS:
        for container in _maps(spec.get(kind)):
            for path, what in _of_container(container, allowed):
                yield f"{kind}[{container.get('name')}].{path}", what


def _of_volume(volume: Mapping[str, Any], allowed: Collection[str]) -> Iterator[Found]:
    path = f"volumes[{volume.get('name')}]"
    for kind in volume.keys() - {"name"} - VOLUMES:
        yield f"{path}.{kind}", f"volumes may be {', '.join(sorted(VOLUMES))}"
    if "secret" in volume:
        yield from _secret(f"{path}.secret.secretName", _map(volume["secret"]).get("secretName"), allowed)
    for index, source in enumerate(_maps(_map(volume.get("projected")).get("sources"))):
        if "secret" in source:
            where = f"{path}.projected.sources[{index}].secret.name"
            yield from _secret(where, _map(source["secret"]).get("name"), allowed)


def _of_container(container: Mapping[str, Any], allowed: Collection[str]) -> Iterator[Found]:
    for variable in _maps(container.get("env")):
        source = _map(variable.get("valueFrom"))
        if "secretKeyRef" in source:
            where = f"env[{variable.get('name')}].valueFrom.secretKeyRef.name"
            yield from _secret(where, _map(source["secretKeyRef"]).get("name"), allowed)
    for index, source in enumerate(_maps(container.get("envFrom"))):
        if "secretRef" in source:
            yield from _secret(f"envFrom[{index}].secretRef.name", _map(source["secretRef"]).get("name"), allowed)
    for index, port in enumerate(_maps(container.get("ports"))):
        if port.get("hostPort") not in (None, 0):
            yield f"ports[{index}].hostPort", "opens a port of the node"
    security = _map(container.get("securityContext"))
    yield from _of_security("securityContext", security)
    if security.get("allowPrivilegeEscalation") is not False:
        yield "securityContext.allowPrivilegeEscalation", "must be false"


def _of_security(path: str, context: Mapping[str, Any]) -> Iterator[Found]:
    """What a security context of a pod or a container gives away."""
    if context.get("privileged") not in (None, False):
        yield f"{path}.privileged", "must not be privileged"
    if _map(context.get("capabilities")).get("add"):
        yield f"{path}.capabilities.add", "adds capabilities"
    if context.get("runAsUser") == 0:
        yield f"{path}.runAsUser", "must not be root"
    if context.get("runAsNonRoot") is False:
        yield f"{path}.runAsNonRoot", "must not be false"
    for key in ("seccompProfile", "appArmorProfile"):
        if _map(context.get(key)).get("type") not in (None, "RuntimeDefault"):
            yield f"{path}.{key}", "must be RuntimeDefault"
    if context.get("procMount") not in (None, "Default"):
        yield f"{path}.procMount", "must be Default"
    for key in ("seLinuxOptions", "windowsOptions", "sysctls"):
        if context.get(key):
            yield f"{path}.{key}", "is not a template's to set"


def _secret(path: str, name: object, allowed: Collection[str]) -> Iterator[Found]:
    if name not in allowed:
        yield path, f"Secret {name} is not one that templates may use"


def _map(value: object) -> Mapping[str, Any]:
    """A map; what is none is refused by the API server, and reaches nothing."""
    return value if isinstance(value, Mapping) else {}


def _maps(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
