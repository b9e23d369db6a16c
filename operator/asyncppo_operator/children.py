"""What is seen of the jobs' children: pods and StatefulSets, by job, and the complaints of these; of all others that they are there.
Fed by informers, read by reconciles.

Owns the views in memory. Does not own the watching (`informer.py`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from asyncppo_operator import names
from asyncppo_operator.kinds import STATEFUL_SET
from asyncppo_operator.names import Role
from asyncppo_operator.shortfalls import Complaints
from asyncppo_operator.views import ChildView, PodView, SetView, child_view, pod_view, set_view

Object = dict[str, Any]
Id = tuple[str, str]
"""Kind and name of an object in a job's namespace."""


class Key(NamedTuple):
    """A job."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Children:
    """`touched(key)` is called for every job whose children changed."""

    def __init__(self, touched: Callable[[Key], None]) -> None:
        self._touched = touched
        self._pods: dict[Key, dict[str, PodView]] = {}
        self._sets: dict[Key, dict[Role, SetView]] = {}
        self._by_uid: dict[str, Key] = {}
        # by kind, for a list is of one kind
        self._objects: dict[str, dict[Key, dict[str, ChildView]]] = {}
        self.complaints = Complaints(self._complained)

    def pods(self, key: Key) -> list[PodView]:
        """The job's pods by name."""
        return [pod for _, pod in sorted(self._pods.get(key, {}).items())]

    def sets(self, key: Key) -> dict[Role, SetView]:
        """The job's StatefulSets."""
        return dict(self._sets.get(key, {}))

    def objects(self, key: Key) -> dict[Id, ChildView]:
        """All the job's objects but its pods: those with its name in their label, whose job they really are says the view."""
        return {
            (kind, child.name): child for kind, jobs in self._objects.items() for child in jobs.get(key, {}).values()
        }

    def objects_listed(self, kind: str, namespace: str | None, objects: list[Object]) -> None:
        """All objects of one kind of ours in `namespace` (None: everywhere)."""
        known = self._objects.setdefault(kind, {})
        before = {key: known.pop(key) for key in list(known) if namespace in (None, key.namespace)}
        for raw in objects:
            self.made(kind, raw)
        for key, seen in before.items():
            if known.get(key, {}) != seen:
                self._touched(key)

    def object_changed(self, kind: str, event: str, raw: Object) -> None:
        """One watch event. What was not there before is our own doing, and no reason to look again."""
        if (key := owner(raw)) is None:
            return
        child = child_view(kind, raw)
        before = self._objects.get(kind, {}).get(key, {}).get(child.name)
        if event == "DELETED":
            if before is None or before.uid != child.uid:
                return  # there is another of its name already
            of_kind = self._objects[kind]
            del of_kind[key][child.name]
            if not of_kind[key]:
                del of_kind[key]
        else:
            self.made(kind, raw)
            if before in (None, child):
                return
        self._touched(key)

    def made(self, kind: str, raw: Object) -> None:
        """An object as the API server has it now: told by a watch, or by the answer to what we wrote, which comes sooner."""
        if (key := owner(raw)) is not None:
            child = child_view(kind, raw)
            self._objects.setdefault(kind, {}).setdefault(key, {})[child.name] = child

    def pods_listed(self, namespace: str | None, objects: list[Object]) -> None:
        """All pods of ours in `namespace` (None: everywhere)."""
        before = {key for key in self._pods if namespace in (None, key.namespace)}
        found: dict[Key, dict[str, PodView]] = {}
        for raw in objects:
            if (key := owner(raw)) is not None and (pod := pod_view(raw)) is not None:
                found.setdefault(key, {})[pod.name] = pod
        for key in before - found.keys():
            del self._pods[key]
        self._pods.update(found)
        for key in before | found.keys():
            self._touched(key)

    def pod_changed(self, kind: str, raw: Object) -> None:
        """One watch event."""
        key, pod = owner(raw), pod_view(raw)
        if key is None or pod is None:
            return
        known = self._pods.setdefault(key, {})
        if kind == "DELETED":
            known.pop(pod.name, None)
            if not known:
                del self._pods[key]
        elif known.get(pod.name) == pod:
            return  # a change of nothing that matters here
        else:
            known[pod.name] = pod
        self._touched(key)

    def sets_listed(self, namespace: str | None, objects: list[Object]) -> None:
        """All StatefulSets of ours in `namespace` (None: everywhere)."""
        self.objects_listed(STATEFUL_SET.kind, namespace, objects)
        before = {key for key in self._sets if namespace in (None, key.namespace)}
        found: dict[Key, dict[Role, SetView]] = {}
        for raw in objects:
            if (key := owner(raw)) is not None and (role := role_of(raw)) is not None:
                found.setdefault(key, {})[role] = set_view(raw)
        for key in before:
            for gone in self._sets.pop(key).values():
                self._by_uid.pop(gone.uid, None)
        self._sets.update(found)
        for key, seen in found.items():
            self._by_uid |= dict.fromkeys((view.uid for view in seen.values()), key)
        for key in before | found.keys():
            self._touched(key)

    def set_changed(self, kind: str, raw: Object) -> None:
        """One watch event."""
        self.object_changed(STATEFUL_SET.kind, kind, raw)
        key, role = owner(raw), role_of(raw)
        if key is None or role is None:
            return
        known = self._sets.setdefault(key, {})
        if kind == "DELETED":
            if (gone := known.pop(role, None)) is not None:
                self._by_uid.pop(gone.uid, None)
            if not known:
                del self._sets[key]
        else:
            seen = set_view(raw)
            if known.get(role) == seen:
                return
            known[role] = seen
            self._by_uid[seen.uid] = key
        self._touched(key)

    def _complained(self, uid: str) -> None:
        if (key := self._by_uid.get(uid)) is not None:
            self._touched(key)


def owner(raw: Object) -> Key | None:
    """The job an object belongs to, by its labels."""
    metadata = raw.get("metadata") or {}
    name = (metadata.get("labels") or {}).get(names.LABEL_JOB)
    namespace = metadata.get("namespace")
    return Key(str(namespace), str(name)) if name and namespace else None


def role_of(raw: Object) -> Role | None:
    """The role an object belongs to, by its labels."""
    label = ((raw.get("metadata") or {}).get("labels") or {}).get(names.LABEL_ROLE)
    try:
        return Role(str(label))
    except ValueError:
        return None
