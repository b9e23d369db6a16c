"""Which spec runs: the one in the job if it is valid, and for a running job only what may change while it runs.

Owns the list of fields that may change, and the pinning of images. Does not own what makes a spec valid (`asyncppo.api`). A job
edited to something invalid or immutable keeps running on what was accepted, and says so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError
from asyncppo_operator.names import Role
from asyncppo_operator.plan.pods import default_image, role_spec
from asyncppo_operator.settings import Settings
from asyncppo_operator.validation import validated

ROLE_KEYS = {Role.LEARNER: "learner", Role.ROLLOUT: "rollout", Role.OLD_LOGIT: "oldLogit"}
MUTABLE: tuple[tuple[str, ...], ...] = (
    ("suspend",),
    ("activeDeadlineSeconds",),
    ("backoffLimit",),
    ("ttlSecondsAfterFinished",),
    ("rollout", "replicas"),
    ("oldLogit", "replicas"),
    ("learner", "retainStorage"),
    *((key, field) for key in ROLE_KEYS.values() for field in ("image", "resources", "template")),
)
"""Paths under spec that a running job may change."""

Spec = dict[str, Any]
MISSING = object()


@dataclass(frozen=True)
class Acceptance:
    """job: what runs; None when nothing valid was ever given. reason: Accepted, InvalidSpec or ImmutableField."""

    job: AsyncPPOJob | None
    reason: str
    message: str

    @property
    def accepted(self) -> bool:
        """Whether the spec as it stands in the job is what runs."""
        return self.reason == "Accepted"


def accept(raw: Mapping[str, Any], before: AsyncPPOJob | None, settings: Settings) -> Acceptance:
    """`raw`: the job as the API server has it. `before`: what was accepted last, None for a new job."""
    try:
        wanted = validated(raw)
    except UserError as error:
        kept = None if before is None else _with_mutable_fields(before, raw)
        return Acceptance(kept, "InvalidSpec", str(error))
    if before is None:
        return Acceptance(_pinned(wanted, None, settings), "Accepted", "the spec is valid")
    wanted = _pinned(wanted, before, settings)
    changed = immutable_changes(before, wanted)
    if not changed:
        return Acceptance(wanted, "Accepted", "the spec is valid")
    text = (
        f"{', '.join(changed)} cannot change once the job was accepted; it runs on with the values it has. "
        "Undo the edit, or delete the job and make a new one"
    )
    return Acceptance(_with_mutable_fields(before, raw), "ImmutableField", text)


def immutable_changes(before: AsyncPPOJob, wanted: AsyncPPOJob) -> list[str]:
    """Paths (spec.a.b) that differ and may not."""
    old, new = _dump(before), _dump(wanted)
    for path in MUTABLE:
        _put(old, path, None)
        _put(new, path, None)
    return sorted(_differences(old, new, "spec"))


def _dump(job: AsyncPPOJob) -> Spec:
    dumped: Spec = job.spec.model_dump(mode="json", by_alias=True)
    return dumped


def _with_spec(job: AsyncPPOJob, spec: Spec) -> AsyncPPOJob:
    """The same job with another spec. UserError when it is not valid."""
    metadata = job.metadata.model_dump(mode="json", by_alias=True)
    return validated({"apiVersion": job.api_version, "kind": job.kind, "metadata": metadata, "spec": spec})


def _pinned(job: AsyncPPOJob, before: AsyncPPOJob | None, settings: Settings) -> AsyncPPOJob:
    """The job with each role's image written out: an operator upgrade changes the default, not running jobs."""
    spec = _dump(job)
    for role, key in ROLE_KEYS.items():
        if role_spec(job, role).image is None:
            kept = None if before is None else role_spec(before, role).image
            spec[key]["image"] = kept or default_image(settings, role)
    return _with_spec(job, spec)


def _with_mutable_fields(before: AsyncPPOJob, raw: Mapping[str, Any]) -> AsyncPPOJob:
    """What runs, with each mutable field of the refused spec that is valid by itself: a job can be suspended whatever else is wrong."""
    kept = before
    for path in MUTABLE:
        value = _get(raw.get("spec"), path)
        if value is MISSING:
            continue
        candidate = _dump(kept)
        _put(candidate, path, json.loads(json.dumps(value)))
        try:
            kept = _with_spec(kept, candidate)
        except UserError:
            continue
    return kept


def _get(spec: object, path: tuple[str, ...]) -> object:
    for key in path:
        if not isinstance(spec, Mapping) or key not in spec:
            return MISSING
        spec = spec[key]
    return spec


def _put(spec: Spec, path: tuple[str, ...], value: object) -> None:
    for key in path[:-1]:
        spec = spec[key]
    spec[path[-1]] = value


def _differences(old: object, new: object, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [p for key in keys for p in _differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [path]
