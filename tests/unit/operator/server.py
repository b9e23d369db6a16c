"""An API server in memory: objects by kind and name, of one namespace, which answers as `Cluster` does.

Owns the double of what executor and loops call. Does not own lists and watches: a test tells the job's `Children` what is there.
"""

import base64
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from asyncppo_operator.errors import ApiError, ConflictError, NotFoundError
from asyncppo_operator.kinds import Resource

Object = dict[str, Any]


class Server:
    """refused: applies of this name fail. writes, looks: what was asked for, in its order. status: the job's, as last applied.

    deleted: called with all that a `delete` took away, as a watch tells it.
    """

    def __init__(self, *there: Object, refused: str = "") -> None:
        self.objects = {(o["kind"], o["metadata"]["name"]): o for o in there}
        self.refused = refused
        self.writes: list[str] = []
        self.looks: list[str] = []
        self.status: Object = {}
        self.deleted: Callable[[Object], None] = lambda _: None

    def of_kind(self, kind: str) -> Iterator[Object]:
        return (made for (its, _), made in self.objects.items() if its == kind)

    async def look(self, resource: Resource, namespace: str, name: str) -> Object | None:
        self.looks.append(f"{resource.kind} {name}")
        return deepcopy(self.objects.get((resource.kind, name)))

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return await self.look(resource, namespace, name)

    async def create(self, manifest: Object) -> Object:
        if (manifest["kind"], manifest["metadata"]["name"]) in self.objects:
            raise ConflictError("there is one", 409)
        return self._store(manifest)

    async def apply(self, manifest: Object, uid: str = "") -> Object:
        """As a real one that finds fields of another's: without the uid of what is there nothing is written."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if name == self.refused:
            self.writes.append(f"{kind} {name}")
            raise ApiError("refused", 422)
        there = self.objects.get((kind, name))
        if (there["metadata"]["uid"] if there else "") != uid:
            raise ConflictError("another object", 409)
        return self._store(manifest)

    async def apply_status(self, resource: Resource, namespace: str, name: str, status: Object) -> Object:
        self.status = deepcopy(status)
        return {}

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Object) -> Object:
        if (resource.kind, name) not in self.objects:
            raise NotFoundError("it is not there", 404)
        _merge(self.objects[resource.kind, name], patch)
        return {}

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str = "") -> bool:
        self.writes.append(f"delete {resource.kind} {name}")
        there = self.objects.get((resource.kind, name))
        if there is None:
            return False
        if uid not in ("", there["metadata"]["uid"]):
            raise ConflictError("another object", 409)
        self.deleted(self.objects.pop((resource.kind, name)))
        return True

    def _store(self, manifest: Object) -> Object:
        identity = (manifest["kind"], manifest["metadata"]["name"])
        self.writes.append(" ".join(identity))
        uid = self.objects[identity]["metadata"]["uid"] if identity in self.objects else f"uid {len(self.writes)}"
        made = deepcopy(manifest)
        told = {key: base64.b64encode(text.encode()).decode() for key, text in made.pop("stringData", {}).items()}
        if told or "data" in made:
            made["data"] = made.get("data", {}) | told
        made["metadata"] |= {"uid": uid, "generation": 1}
        self.objects[identity] = made
        return deepcopy(made)


def _merge(into: Object, patch: Object) -> None:
    """A JSON merge patch."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
