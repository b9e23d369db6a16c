"""What the operator sees of pods and StatefulSets, reduced to what it decides by.

Owns the reading of raw API objects, which may lack any field. Does not own what follows from it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncppo_operator import names
from asyncppo_operator.names import Role

Raw = Mapping[str, Any]

MESSAGE_LIMIT = 1024
# Reasons of a waiting container that only say "not yet".
PATIENT = frozenset({"", "ContainerCreating", "PodInitializing"})


@dataclass(frozen=True)
class Termination:
    """How a container ended. message: its own last words (the end of its log). at: RFC 3339."""

    exit_code: int
    reason: str = ""
    message: str = ""
    signal: int = 0
    at: str = ""

    @property
    def text(self) -> str:
        """For humans: what happened, then the last words."""
        what = self.reason or "Error"
        how = f"signal {self.signal}" if self.signal else f"exit code {self.exit_code}"
        head = f"{what} ({how})"
        return f"{head}: {self.message}" if self.message else head


@dataclass(frozen=True)
class PodView:
    """One pod of a role. `trouble` and `trouble_reason` say why it does not run; empty when it does or is merely starting."""

    name: str
    uid: str
    role: Role
    ordinal: int
    job_uid: str = ""
    ip: str = ""
    template_hash: str = ""
    rendering: str = ""
    ready: bool = False
    running: bool = False
    deleting: bool = False
    disrupted: bool = False
    restarts: int = 0
    last: Termination | None = None
    trouble_reason: str = ""
    trouble: str = ""


@dataclass(frozen=True)
class SetView:
    """One StatefulSet. replicas: desired as stored; existing: pods the controller has made."""

    name: str
    uid: str
    replicas: int
    existing: int
    generation: int
    job_uid: str = ""
    deleting: bool = False
    template_hash: str = ""
    rendering: str = ""


@dataclass(frozen=True)
class ChildView:
    """Any object with a name of ours, by its metadata. job_uid: what its label says; owner: uid of the controller that owns it."""

    kind: str
    name: str
    uid: str
    job_uid: str = ""
    owner: str = ""
    deleting: bool = False

    def belongs_to(self, job_uid: str) -> bool:
        """Whether it is that job's: by the label that all of a job's objects carry, or by its owner, should a label be lost."""
        return job_uid in (self.job_uid, self.owner)


def brief(text: object, limit: int = MESSAGE_LIMIT) -> str:
    """One line of at most `limit` characters; of a long text its end, where programs say what went wrong."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= limit else "… " + line[-(limit - 2) :]


def pod_view(raw: Raw) -> PodView | None:
    """A pod of ours, or None when its labels or name are not ours."""
    metadata = raw.get("metadata") or {}
    status = raw.get("status") or {}
    labels = metadata.get("labels") or {}
    name = str(metadata.get("name") or "")
    ordinal = re.search(r"-(\d{1,6})$", name)
    try:
        role = Role(str(labels.get(names.LABEL_ROLE)))
    except ValueError:
        return None
    if ordinal is None:
        return None
    annotations = metadata.get("annotations") or {}
    containers = _containers(status, role)
    main = next((c for c in containers if c.get("name") == role.value), {})
    state = main.get("state") or {}
    reason, trouble = _trouble(status, containers)
    return PodView(
        name=name,
        uid=str(metadata.get("uid") or ""),
        role=role,
        ordinal=int(ordinal.group(1)),
        job_uid=str(labels.get(names.LABEL_UID) or ""),
        ip=str(status.get("podIP") or ""),
        template_hash=str(annotations.get(names.ANNOTATION_TEMPLATE) or ""),
        rendering=str(annotations.get(names.ANNOTATION_RENDERING) or ""),
        ready=_condition(status, "Ready").get("status") == "True",
        running="running" in state,
        deleting=bool(metadata.get("deletionTimestamp")),
        disrupted=_disrupted(status),
        restarts=_number(main.get("restartCount")),
        last=_last_failure(main),
        trouble_reason=reason,
        trouble=trouble,
    )


def child_view(kind: str, raw: Raw) -> ChildView:
    """Of an object or of its metadata alone."""
    metadata = raw.get("metadata") or {}
    owners = [o for o in metadata.get("ownerReferences") or [] if isinstance(o, Mapping)]
    controller = next((o for o in owners if o.get("controller")), owners[0] if owners else {})
    return ChildView(
        kind=kind,
        name=str(metadata.get("name") or ""),
        uid=str(metadata.get("uid") or ""),
        job_uid=str((metadata.get("labels") or {}).get(names.LABEL_UID) or ""),
        owner=str(controller.get("uid") or ""),
        deleting=bool(metadata.get("deletionTimestamp")),
    )


def set_view(raw: Raw) -> SetView:
    """A StatefulSet."""
    metadata, spec, status = raw.get("metadata") or {}, raw.get("spec") or {}, raw.get("status") or {}
    template = ((spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}
    return SetView(
        name=str(metadata.get("name") or ""),
        uid=str(metadata.get("uid") or ""),
        replicas=_number(spec.get("replicas", 1)),
        existing=_number(status.get("replicas")),
        generation=_number(metadata.get("generation")),
        job_uid=str((metadata.get("labels") or {}).get(names.LABEL_UID) or ""),
        deleting=bool(metadata.get("deletionTimestamp")),
        template_hash=str(template.get(names.ANNOTATION_TEMPLATE) or ""),
        rendering=str(template.get(names.ANNOTATION_RENDERING) or ""),
    )


def _containers(status: Raw, role: Role) -> list[Raw]:
    found = [c for c in status.get("containerStatuses") or [] if isinstance(c, Mapping)]
    # a template overlay may add side-cars; the role's own container is told first
    return sorted(found, key=lambda c: c.get("name") != role.value)


def _condition(status: Raw, kind: str) -> Raw:
    for condition in status.get("conditions") or []:
        if isinstance(condition, Mapping) and condition.get("type") == kind:
            return condition
    return {}


def _disrupted(status: Raw) -> bool:
    """Whether the cluster, not the program, ended the pod."""
    if _condition(status, "DisruptionTarget").get("status") == "True":
        return True
    return status.get("reason") in ("Evicted", "Preempting", "NodeLost", "Shutdown", "Terminated", "NodeShutdown")


def _termination(raw: object) -> Termination | None:
    if not isinstance(raw, Mapping):
        return None
    return Termination(
        exit_code=_number(raw.get("exitCode")),
        reason=str(raw.get("reason") or ""),
        message=brief(raw.get("message")),
        signal=_number(raw.get("signal")),
        at=str(raw.get("finishedAt") or ""),
    )


def _last_failure(container: Raw) -> Termination | None:
    """The newest end of the container that was not a clean one."""
    for place in ("state", "lastState"):
        ended = _termination((container.get(place) or {}).get("terminated"))
        if ended is not None and ended.exit_code != 0:
            return ended
    return None


def _trouble(status: Raw, containers: list[Raw]) -> tuple[str, str]:
    """Why the pod does not run: (CamelCase reason, message)."""
    initial = [c for c in status.get("initContainerStatuses") or [] if isinstance(c, Mapping)]
    for container in [*initial, *containers]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason in PATIENT:
            continue
        if reason == "CrashLoopBackOff" and (last := _last_failure(container)) is not None:
            return reason, f"container {container.get('name')} keeps ending: {last.text}"
        image = f" (image {container['image']})" if container.get("image") and "Image" in reason else ""
        return reason, brief(f"container {container.get('name')}{image}: {waiting.get('message') or reason}")
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False" and not containers:
        return str(scheduled.get("reason") or "Unschedulable"), brief(scheduled.get("message") or "not scheduled")
    if status.get("phase") == "Failed":
        return str(status.get("reason") or "PodFailed"), brief(status.get("message") or "the pod failed")
    return "", ""


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
