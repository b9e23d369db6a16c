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
from asyncppo.api.schema import INT_OR_STRING, Schema, at, spec_schema

CHANGEABLE: tuple[str, ...] = (
    "suspend",
    "activeDeadlineSeconds",
    "backoffLimit",
    "labels",
    "annotations",
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
_UPWARDS_MESSAGE = "may be raised on an existing job, never lowered: versions that exist cannot be taken back"
_FIXED_MESSAGE = "cannot change on a job that exists"
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
    """Every change from `old` to `new` that a job that exists cannot follow, each at its own field."""
    before, after = _dump(old), _dump(new)
    problems = []
    for path in fixed_paths():
        for field, was, now in _differences(at(spec_schema(), path), path, _get(before, path), _get(after, path)):
            problems.append(Problem(f"spec.{field}", f"{_FIXED_MESSAGE}{_difference(was, now)}", _REMEDY))
    was, now = old.algorithm.updates, new.algorithm.updates
    if now < was:
        problems.append(Problem(f"spec.{ONLY_UPWARDS}", f"{_UPWARDS_MESSAGE}{_difference(was, now)}", _REMEDY))
    return problems


def paths_changed(old: AsyncPPOJobSpec, new: AsyncPPOJobSpec) -> list[str]:
    """Every field in which the two differ, as a dotted path below `spec`; a map or list of the user's own counts as one field."""
    return sorted(_leaves_changed(spec_schema(), _dump(old), _dump(new), ""))


def _leaves_changed(node: Schema, was: Any, now: Any, path: str) -> Iterator[str]:
    if was == now:
        return
    if "properties" not in node or not isinstance(was, dict) or not isinstance(now, dict):
        yield path
        return
    for name, child in node["properties"].items():
        yield from _leaves_changed(child, was.get(name), now.get(name), f"{path}.{name}".removeprefix("."))


def job_fingerprint(spec: AsyncPPOJobSpec) -> str:
    """SHA-256 (64 hex digits) over the fields that must be the same in a run and in what resumes it.

    Only what differs from a default counts, so that a field added later leaves the fingerprints of earlier runs alone.
    """
    told = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    fixed = {path: value for path in fixed_paths() if (value := _get(told, path)) is not None}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def transition_rules() -> Iterator[tuple[str, Schema]]:
    """The CEL twins: the node below `spec` that each is hung on, and the rule.

    A field's rule is hung on the field, so that the refusal names it with the old and the new value. It is asked only where both are
    there; that a field which may be left out appears or goes is for its parent to refuse.
    """
    for path in fixed_paths():
        yield from _fixed_rules(path)
    yield ONLY_UPWARDS, _transition(at(spec_schema(), ONLY_UPWARDS), "self >= oldSelf", _UPWARDS_MESSAGE)


def _fixed_rules(path: str) -> Iterator[tuple[str, Schema]]:
    node, (parent, _, name) = at(spec_schema(), path), path.rpartition(".")
    if name not in at(spec_schema(), parent).get("required", ()) and "default" not in node:
        yield (
            parent,
            {
                "rule": f"has(self.{name}) == has(oldSelf.{name})",
                "message": f"cannot be set or removed on a job that exists; {_REMEDY}",
                "fieldPath": f".{name}",
            },
        )
    if "properties" not in node:
        yield path, _transition(node, "self == oldSelf", _FIXED_MESSAGE)
    for below in node.get("properties", ()):
        yield from _fixed_rules(f"{path}.{below}")


def _transition(node: Schema, rule: str, message: str) -> Schema:
    """A rule with the words of `changes_refused`; of a value that is no scalar it cannot show the content."""
    if INT_OR_STRING not in node and node["type"] not in ("string", "integer", "number", "boolean"):
        return {"rule": rule, "message": f"{message}; {_REMEDY}"}
    # `format` and no `+`: a server takes what string() makes for endless and refuses a sum of it as too dear.
    shows = '"%s"' if node.get("type") == "string" else "%s"
    words = f"{message} (was {shows}, now {shows}); {_REMEDY}"
    return {"rule": rule, "messageExpression": f"'{words}'.format([oldSelf, self])"}


def _dump(spec: AsyncPPOJobSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", by_alias=True)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _differences(node: Schema, path: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict) and "properties" in node:
        for name, child in node["properties"].items():
            yield from _differences(child, f"{path}.{name}", was.get(name), now.get(name))
    elif was != now:
        yield path, was, now


def _difference(was: Any, now: Any) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        names = [str(name) for name in was | now if was.get(name) != now.get(name)]
        return f" (changed: {', '.join(names[:6])})"
    return f" (was {_value(was)}, now {_value(now)})"


def _value(value: Any) -> str:
    return "not set" if value is None else shown(value)
