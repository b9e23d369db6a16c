"""What may change on a job that exists, and what makes it another job.

Owns the table of changeable fields, its CEL twins (transition rules) and the fingerprint over everything else. Does not own how a
change takes effect: `suspend`, `rollout.replicas` and the deadlines do at once, the rest when the role's program next starts.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.problems import Problem, shown
from asyncppo.api.schema import Schema, spec_schema

CHANGEABLE: tuple[str, ...] = (
    "suspend",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "reward.bound",
    "algorithm.updates",
    "optimizer.microBatchTokens",
    "weightSync.pauseTimeoutSeconds",
    "weightSync.loadTimeoutSeconds",
    "weightSync.minReady",
    "learner.image",
    "learner.resources",
    "learner.template",
    "learner.retainStorage",
    "learner.adoptStorage",
    "learner.threads",
    "rollout.image",
    "rollout.resources",
    "rollout.template",
    "rollout.replicas",
    "rollout.concurrency",
    "rollout.engine.tensorParallel",
    "rollout.engine.kvCacheBytes",
    "rollout.engine.threads",
    "oldLogit",
    "checkpoint",
)
"""Paths below `spec`: how the work is done, not what is learnt. Everything else decides what a trained token means."""

ONLY_UPWARDS = "algorithm.updates"
_UPWARDS_MESSAGE = (
    "algorithm.updates may be raised on an existing job, never lowered: versions that exist cannot be taken back"
)
_REMEDY = "put the old value back, or make a job with another name"


def fixed_paths() -> tuple[str, ...]:
    """The largest parts of a spec that never change, as dotted paths below `spec`."""
    return tuple(_fixed(spec_schema(), ""))


def _fixed(node: Schema, path: str) -> Iterator[str]:
    if path in CHANGEABLE:
        return
    if path and not any(changeable.startswith(f"{path}.") for changeable in CHANGEABLE):
        yield path
        return
    for name, child in node["properties"].items():
        yield from _fixed(child, f"{path}.{name}".removeprefix("."))


def changes_refused(old: AsyncPPOJobSpec, new: AsyncPPOJobSpec) -> list[Problem]:
    """Every change from `old` to `new` that a job that exists cannot follow."""
    before, after = _dump(old), _dump(new)
    problems = []
    for path in fixed_paths():
        was, now = _get(before, path), _get(after, path)
        if was != now:
            problems.append(
                Problem(f"spec.{path}", f"cannot change on a job that exists{_difference(was, now)}", _REMEDY)
            )
    if new.algorithm.updates < old.algorithm.updates:
        what = f"{_UPWARDS_MESSAGE} (was {old.algorithm.updates}, now {new.algorithm.updates})"
        problems.append(Problem(f"spec.{ONLY_UPWARDS}", what, _REMEDY))
    return problems


def job_fingerprint(spec: AsyncPPOJobSpec) -> str:
    """SHA-256 (64 hex digits) over the fields that must be the same in a run and in what resumes it.

    Only what differs from a default counts, so that a field added later leaves the fingerprints of earlier runs alone.
    """
    told = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    fixed = {path: value for path in fixed_paths() if (value := _get(told, path)) is not None}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def transition_rules() -> list[dict[str, str]]:
    """The CEL twins, attached to `spec`: one per top-level field that is fixed or has fixed parts, and one for updates."""
    schema = spec_schema()
    sections: dict[str, list[str]] = {}
    for path in fixed_paths():
        sections.setdefault(path.split(".")[0], []).append(path)
    rules = []
    for section, paths in sections.items():
        if paths == [section]:
            message = f"{section} cannot change on a job that exists"
        else:
            names = ", ".join(path.removeprefix(f"{section}.") for path in paths)
            message = f"{section}: these fields cannot change on a job that exists: {names}"
        rule = " && ".join(_same(schema, path) for path in paths)
        rules.append({"rule": rule, "message": f"{message}; {_REMEDY}"})
    rules.append({"rule": f"self.{ONLY_UPWARDS} >= oldSelf.{ONLY_UPWARDS}", "message": _UPWARDS_MESSAGE})
    return rules


def _same(schema: Schema, path: str) -> str:
    parent, _, name = path.rpartition(".")
    node = schema
    for part in parent.split(".") if parent else ():
        node = node["properties"][part]
    if name in node.get("required", ()) or "default" in node["properties"][name]:
        return f"self.{path} == oldSelf.{path}"
    return f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || self.{path} == oldSelf.{path})"


def _dump(spec: AsyncPPOJobSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _difference(was: Any, now: Any) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        names = [name for name in was | now if was.get(name) != now.get(name)]
        return f" (changed: {', '.join(names[:6])})"
    return f" (was {shown(was)}, now {shown(now)})"
