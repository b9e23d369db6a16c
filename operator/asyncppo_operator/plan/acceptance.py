"""Which spec runs: the one in the job if it is valid, and for a running job only what may change while it runs.

Owns what becomes of a refused edit, and the pinning of images. Does not own what makes a spec valid nor what may change
(`asyncppo.api`). A job edited to something invalid or immutable keeps running on what was accepted, and says so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncppo.api.changes import CHANGEABLE, changes_refused
from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError
from asyncppo.estimate.choice import reason as choice_reason
from asyncppo.estimate.choice import settled
from asyncppo_operator.names import Role
from asyncppo_operator.plan.pods import default_image, role_spec
from asyncppo_operator.settings import Settings
from asyncppo_operator.validation import validated

ROLE_KEYS = {Role.LEARNER: "learner", Role.ROLLOUT: "rollout", Role.OLD_LOGIT: "oldLogit"}
Spec = dict[str, Any]
MISSING = object()


@dataclass(frozen=True)
class Acceptance:
    """job: what runs; None when nothing valid was ever given. reason: Accepted, InvalidSpec or ImmutableField.

    choice: why strategy Auto took what runs; "" for any other strategy.
    """

    job: AsyncPPOJob | None
    reason: str
    message: str
    choice: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the spec as it stands in the job is what runs."""
        return self.reason == "Accepted"


def accept(raw: Mapping[str, Any], before: AsyncPPOJob | None, settings: Settings) -> Acceptance:
    """`raw`: the job as the API server has it. `before`: what was accepted last, None for a new job."""
    try:
        asked = validated(raw)
        wanted = _pinned(settled(asked, before), before, settings)
    except UserError as error:
        kept = None if before is None else _with_changeable_fields(before, raw, settings)
        return Acceptance(kept, "InvalidSpec", str(error))
    choice = choice_reason(asked, before)
    refused = changes_refused(before.spec, wanted.spec) if before is not None else []
    if before is None or not refused:
        return Acceptance(wanted, "Accepted", f"the spec is valid{_warning(wanted)}", choice)
    text = "; ".join(str(problem) for problem in refused)
    return Acceptance(
        _with_changeable_fields(before, raw, settings),
        "ImmutableField",
        f"{text}. Until then the job runs on as it was",
        choice,
    )


def _warning(job: AsyncPPOJob) -> str:
    """What is valid and may not be what was meant."""
    if job.spec.ttl_seconds_after_finished is None or job.spec.learner.retain_storage:
        return ""
    return (
        f"; but {job.spec.ttl_seconds_after_finished} s after its end the job is deleted, and with it its volume and the trained model: "
        "copy them before that, or set learner.retainStorage: true"
    )


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
            spec[key]["image"] = kept or default_image(job, role, settings)
    return _with_spec(job, spec)


def _with_changeable_fields(before: AsyncPPOJob, raw: Mapping[str, Any], settings: Settings) -> AsyncPPOJob:
    """What runs, with each changeable field of the refused spec that is valid by itself: a job can be suspended whatever else is wrong."""
    kept = before
    for dotted in CHANGEABLE:
        path = dotted.split(".")
        value = _get(raw.get("spec"), path)
        if value is MISSING:
            continue
        candidate = _dump(kept)
        _put(candidate, path, json.loads(json.dumps(value)))
        try:
            changed = _pinned(_with_spec(kept, candidate), before, settings)
        except UserError:
            continue
        if not changes_refused(kept.spec, changed.spec):
            kept = changed
    return kept


def _get(spec: object, path: list[str]) -> object:
    for key in path:
        if not isinstance(spec, Mapping) or key not in spec:
            return MISSING
        spec = spec[key]
    return spec


def _put(spec: Spec, path: list[str], value: object) -> None:
    for key in path[:-1]:
        spec = spec[key]
    spec[path[-1]] = value
