"""Labels and annotations that a job's objects carry for others: for policies, queues, and those who pay.

Owns where they come from, in this order, the later winning: the chart (`labels`, `annotations` of the settings), the labels in the
job's metadata, the job's spec. Does not own the operator's own labels, which come after all of these and alone select (`names.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.labels import is_own
from asyncppo_operator.settings import Settings


@dataclass(frozen=True)
class Marks:
    """labels: of all objects. annotations: of all but the ServiceAccount; account_annotations: of that one."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    account_annotations: Mapping[str, str] = field(default_factory=dict)


def marks(job: AsyncPPOJob, own_labels: Mapping[str, str], settings: Settings) -> Marks:
    """`own_labels`: the labels in the job's metadata, as they are now."""
    inherited = {name: value for name, value in own_labels.items() if _is_inherited(name)}
    return Marks(
        labels={**settings.labels, **inherited, **job.spec.labels},
        annotations={**settings.annotations, **job.spec.annotations},
        # clouds give a pod's account its identity by annotations of it: the administrator's to give, not an author's
        account_annotations=settings.annotations,
    )


def _is_inherited(name: str) -> bool:
    """Not what tools write for themselves: whoever tracks or prunes by a label must not find the job's objects by it."""
    domain, slash, _ = name.rpartition("/")
    if not slash:
        return not is_own(name)
    tools = domain == "kubernetes.io" or domain.endswith(".kubernetes.io") or domain.startswith("argocd.")
    return not (tools or is_own(name))


def marked(manifest: Mapping[str, Any], made: Marks) -> dict[str, Any]:
    """The object with the marks, also those of its pods. What it has already wins: the operator's own, and a pod's overlay."""
    annotations = made.account_annotations if manifest["kind"] == "ServiceAccount" else made.annotations
    result = {**manifest, "metadata": _with(manifest["metadata"], made.labels, annotations)}
    if manifest["kind"] == "StatefulSet":
        template = manifest["spec"]["template"]
        metadata = _with(template["metadata"], made.labels, annotations)
        result["spec"] = {**manifest["spec"], "template": {**template, "metadata": metadata}}
    return result


def _with(metadata: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, Any]:
    result = {**metadata, "labels": {**labels, **metadata["labels"]}}
    if annotations:
        result["annotations"] = {**annotations, **metadata.get("annotations", {})}
    return result
