"""Which spec runs: the one in the job if it is valid, and for a running job only what may change while it runs.

Owns what becomes of a refused edit, which edits a finished job still follows, and the pinning of images. Does not own what makes a
spec valid nor what may change
(`asyncppo.api`). A job edited to something invalid or immutable keeps running on what was accepted, and says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncppo.api.changes import CHANGEABLE, changes_refused, paths_changed
from asyncppo.api.implemented import not_built
from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.problems import ManifestError, Problem
from asyncppo.api.status import Phase
from asyncppo.api.warnings import warnings
from asyncppo.errors import UserError
from asyncppo.estimate.choice import reason as choice_reason
from asyncppo.estimate.choice import settled
from asyncppo_operator.names import Role
from asyncppo_operator.plan.confinement import annotation_problems, template_problems
from asyncppo_operator.plan.pods import default_image, role_spec
from asyncppo_operator.settings import Settings
from asyncppo_operator.validation import validated

ROLE_KEYS = {Role.LEARNER: "learner", Role.ROLLOUT: "rollout", Role.OLD_LOGIT: "oldLogit"}
Spec = dict[str, Any]
MISSING = object()

AFTER_THE_END = ("ttlSecondsAfterFinished", "learner.retainStorage")
"""What a job that is over still follows: when it goes, and whether its volume goes with it."""


@dataclass(frozen=True)
class Ended:
    """How a job ended. updates: how many a complete one has done. storage: whether its volume is there, to go on from."""

    phase: Phase
    updates: int = 0
    storage: bool = True


@dataclass(frozen=True)
class Acceptance:
    """job: what runs; None when nothing valid was ever given. reason: Accepted, InvalidSpec, ImmutableField, TemplateNotAllowed or
    JobFinished.

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


def accept(
    raw: Mapping[str, Any], before: AsyncPPOJob | None, settings: Settings, ended: Ended | None = None
) -> Acceptance:
    """`raw`: the job as the API server has it. `before`: what was accepted last, None for a new job. `ended`: of a job that is over."""
    fields = CHANGEABLE if ended is None else AFTER_THE_END
    try:
        asked = validated(raw)
        wanted = _pinned(settled(asked, before), before, settings)
    except UserError as error:
        kept = _kept(before, raw, settings, fields, ended)
        return Acceptance(kept, "InvalidSpec", str(error))
    choice = choice_reason(asked, before)
    confined = "; ".join(str(problem) for problem in _template_problems(wanted, settings))
    if confined and ended is None:
        return Acceptance(_kept(before, raw, settings, fields, ended), "TemplateNotAllowed", confined, choice)
    if before is None:
        return Acceptance(wanted, "Accepted", _valid(wanted), choice)
    refused = changes_refused(before.spec, wanted.spec)
    if refused:
        text = "; ".join(str(problem) for problem in refused)
        stays = "the job runs on as it was" if ended is None else "the job, which is over, stays as it was"
        kept = _kept(before, raw, settings, fields, ended)
        return Acceptance(kept, "ImmutableField", f"{text}. Until then {stays}", choice)
    if ended is not None:
        if confined and continues(wanted, before, ended):
            return Acceptance(before, "TemplateNotAllowed", confined, choice)
        return _after_the_end(wanted, before, _with_fields(before, raw, settings, fields), ended, choice)
    return Acceptance(wanted, "Accepted", _valid(wanted), choice)


def _after_the_end(wanted: AsyncPPOJob, ran: AsyncPPOJob, kept: AsyncPPOJob, ended: Ended, choice: str) -> Acceptance:
    """What becomes of an edit of a job that is over. `ran`: as it ended. `kept`: with the fields that it still follows."""
    if continues(wanted, ran, ended):
        text = f"the spec is valid; the job goes on from update {ended.updates} to {wanted.spec.algorithm.updates}"
        return Acceptance(wanted, "Accepted", text, choice)
    idle = [path for path in paths_changed(ran.spec, wanted.spec) if path not in AFTER_THE_END]
    if not idle:
        return Acceptance(kept, "Accepted", _valid(kept), choice)
    if ended.phase is not Phase.COMPLETE:
        why = "a job that failed does not run again; make another job"
    elif not ended.storage:
        why = "the volume with its checkpoints is gone; make another job"
    else:
        why = "a complete job goes on only when algorithm.updates is raised, and then with all other changes"
    fields = ", ".join(f"spec.{path}" for path in idle)
    text = f"{fields} changed after the job was {ended.phase}, and nothing happens: {why}"
    return Acceptance(kept, "JobFinished", text, choice)


def continues(wanted: AsyncPPOJob, ran: AsyncPPOJob, ended: Ended) -> bool:
    """Whether an edit makes a complete job go on."""
    more = wanted.spec.algorithm.updates > ran.spec.algorithm.updates
    return ended.phase is Phase.COMPLETE and more and ended.storage


def _template_problems(job: AsyncPPOJob, settings: Settings) -> list[Problem]:
    found = annotation_problems(job, settings)
    for role, field in ROLE_KEYS.items():
        found += template_problems(job, role, field, settings)
    return found


def _kept(
    before: AsyncPPOJob | None, raw: Mapping[str, Any], settings: Settings, fields: Sequence[str], ended: Ended | None
) -> AsyncPPOJob | None:
    """What runs on when an edit is refused. What a confined template reaches does not run on because it ran before: the memory of it
    lies in the job's own namespace."""
    if before is None or (ended is None and _template_problems(before, settings)):
        return None
    return _with_fields(before, raw, settings, fields)


def _valid(job: AsyncPPOJob) -> str:
    """The message of an accepted spec, with what is doubtful about it."""
    return "; ".join(["the spec is valid", *(f"warning: {each}" for each in warnings(job.spec))])


def _dump(job: AsyncPPOJob) -> Spec:
    dumped: Spec = job.spec.model_dump(mode="json", by_alias=True)
    return dumped


def _with_spec(job: AsyncPPOJob, spec: Spec) -> AsyncPPOJob:
    """The same job with another spec. UserError when it is not valid, or has more than the job that no program does yet."""
    metadata = job.metadata.model_dump(mode="json", by_alias=True)
    document = {"apiVersion": job.api_version, "kind": job.kind, "metadata": metadata, "spec": spec}
    earlier = not_built(_dump(job))
    if problems := [problem for problem in not_built(spec) if problem not in earlier]:
        raise ManifestError("spec", problems)
    return validated(document, lenient=True)


def _pinned(job: AsyncPPOJob, before: AsyncPPOJob | None, settings: Settings) -> AsyncPPOJob:
    """The job with each role's image written out: an operator upgrade changes the default, not running jobs."""
    spec = _dump(job)
    for role, key in ROLE_KEYS.items():
        if role_spec(job, role).image is None:
            kept = None if before is None else role_spec(before, role).image
            spec[key]["image"] = kept or default_image(job, role, settings)
    return _with_spec(job, spec)


def _with_fields(before: AsyncPPOJob, raw: Mapping[str, Any], settings: Settings, fields: Sequence[str]) -> AsyncPPOJob:
    """What runs, with each of `fields` of the spec as it stands that is valid by itself: a job can be suspended whatever else is wrong."""
    kept = before
    for dotted in fields:
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
        if not changes_refused(kept.spec, changed.spec) and not _template_problems(changed, settings):
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
