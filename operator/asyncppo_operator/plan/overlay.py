"""A role's `template`: a partial PodTemplateSpec merged strategically over the rendered one.

Owns the merge: maps are merged, null deletes a key, the lists below are merged by their key ("$patch: delete" removes an item), all
other lists are replaced. The keys are those of Kubernetes' strategic merge patch for pods. Does not own what must survive an
overlay (`pods.py` sets labels and annotations after it).
"""

from collections.abc import Mapping
from typing import Any

from asyncppo.errors import UserError

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
PATCH = "$patch"


def merge(rendered: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`overlay` over `rendered`, neither changed. UserError when an item of a keyed list has no key."""
    return _merge_map(rendered, overlay, "template")


def _merge_map(rendered: Mapping[str, Any], overlay: Mapping[str, Any], path: str) -> dict[str, Any]:
    if overlay.get(PATCH) == "replace":
        return {key: value for key, value in overlay.items() if key != PATCH}
    result = dict(rendered)
    for key, value in overlay.items():
        here = f"{path}.{key}"
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = _merge_map(below if isinstance(below, Mapping) else {}, value, here)
        elif isinstance(value, list) and key in MERGE_KEYS:
            below = result.get(key)
            result[key] = _merge_list(below if isinstance(below, list) else [], value, MERGE_KEYS[key], here)
        else:
            result[key] = value
    return result


def _merge_list(rendered: list[Any], overlay: list[Any], identity: str, path: str) -> list[Any]:
    result = list(rendered)
    for index, item in enumerate(overlay):
        here = f"{path}[{index}]"
        if not isinstance(item, Mapping) or identity not in item:
            raise UserError(f"{here}: items of this list need {identity!r}, by which they are merged")
        at = next((i for i, old in enumerate(result) if old.get(identity) == item[identity]), None)
        if item.get(PATCH) == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(_merge_map({}, item, here))
        else:
            result[at] = _merge_map(result[at], item, here)
    return result
