"""Carries out one job's plans: applies what is not as it should be, makes again what is gone, deletes what must go.

Owns what this process has applied already, so that an unchanged plan costs no call, and the test whose an object is before it is
touched: what is not this job's stays as it is. Does not own the plan.
"""

import asyncio
import base64
import binascii
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from asyncppo_operator import names
from asyncppo_operator.children import Children, Id, Key
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.errors import ConflictError
from asyncppo_operator.kinds import CLAIM, JOB, POD, SECRET, STATEFUL_SET, resource_of
from asyncppo_operator.names import Role
from asyncppo_operator.plan.applied import applied
from asyncppo_operator.plan.planner import Plan, Ref, applied_hash
from asyncppo_operator.plan.pods import Held
from asyncppo_operator.views import ChildView, PodView, SetView, child_view

Object = dict[str, Any]

# Of names that are taken so many are told; a job has two dozen objects at most.
TOLD = 8


class NameTakenError(ConflictError):
    """An object of a name that the job needs is not this job's. It is left alone, and the job waits until the name is free."""

    reason = "NameTaken"

    def __init__(self, message: str) -> None:
        super().__init__(message, 409)


class Executor:
    """One job's hands. All methods raise ApiError."""

    def __init__(self, cluster: Cluster, children: Children, key: Key, uid: str) -> None:
        self._cluster = cluster
        self._children = children
        self._key = key
        self._uid = uid
        self._applied: dict[Id, str] = {}
        self._generations: dict[str, int] = {}
        self._deleted: set[str] = set()
        self.token = ""
        """The job's control token."""
        self.single_token = False
        """Whether it serves every role: the job's Secret is of before roles had their own."""

    async def carry_out(
        self, plan: Plan, pods: Sequence[PodView], sets: Mapping[Role, SetView], new: bool, afresh: bool
    ) -> None:
        """`new`: a job never seen before. `afresh`: apply everything, whatever was applied already."""
        if plan.delete_job:
            await self._cluster.delete(JOB, *self._key, uid=self._uid)
            return
        there = self._children.objects(self._key)
        if plan.delete:
            await self._delete(plan, there)
            return
        if new:
            there |= await self._refuse_taken_names(plan, pods, there)
        # after the check: a token of the job's own says also to the next operator that the names were free
        failed = await _all([self._make_once(m, there.get(identity_of(m)), new) for m in plan.once])
        if failed is not None and new:
            raise failed
        generations = {view.name: view.generation for view in sets.values()}
        stale = [manifest for manifest in plan.apply if afresh or self._stale(manifest, there, generations)]
        # what makes pods comes after all that its pods find or are guarded by; a set that makes them already is scaled whatever fails
        others = await _all([self._apply(m, there, plan, new) for m in stale if m["kind"] != STATEFUL_SET.kind])
        failed = failed or others
        stale = [m for m in stale if m["kind"] == STATEFUL_SET.kind and (failed is None or identity_of(m) in there)]
        failed = await _all([self._apply(m, there, plan, new) for m in stale]) or failed
        if failed is not None:
            raise failed
        outdated = {pod.name: pod for pod in pods}
        for name in plan.restart:
            await self._cluster.delete(POD, self._key.namespace, name, uid=outdated[name].uid)

    async def recall_token(self) -> None:
        """Take the token that the job has already, if it has one."""
        found = await self._cluster.get(SECRET, self._key.namespace, names.token(self._key.name))
        if found is not None and self._usable(child_view(SECRET.kind, found)):
            self._take_token(found)

    def _take_token(self, secret: Object) -> None:
        self.token, self.single_token = token_of(secret)

    async def claim(self) -> ChildView | None:
        """The volume claim of the job's name, whosoever it is, from the API server itself where no watch has told of it."""
        name = names.storage(self._key.name)
        seen = self._children.objects(self._key).get((CLAIM.kind, name))
        if seen is not None and seen.belongs_to(self._uid):
            return seen
        found = await self._cluster.look(CLAIM, self._key.namespace, name)
        return child_view(CLAIM.kind, found) if found is not None else None

    async def rendered(self, role: Role) -> Held | None:
        """The pod spec of the role's StatefulSet, as it was applied; None when there is none."""
        found = await self._cluster.get(STATEFUL_SET, self._key.namespace, names.workload(self._key.name, role))
        if found is None:
            return None
        template = found["spec"]["template"]
        annotations = (template.get("metadata") or {}).get("annotations") or {}
        # one that was restored from a copy may lack the record of who applied what
        spec = applied(found, "spec", "template", "spec") or template["spec"]
        return Held(spec, str(annotations.get(names.ANNOTATION_RENDERING) or ""))

    async def _apply(self, manifest: Object, there: Mapping[Id, ChildView], plan: Plan, looked: bool) -> None:
        """`looked`: what is not `there` is really not, the API server has just said so."""
        identity = identity_of(manifest)
        child = there.get(identity)
        if child is not None and child.deleting and child.belongs_to(self._uid):
            return  # it is made again when it is gone
        if child is None and not looked:
            child = await self._look(manifest)
        if child is None and _named(identity, plan.never_again):
            return
        if child is not None and (taken := self._taken(child, plan)):
            raise NameTakenError(_told([taken]))
        self._applied.pop(identity, None)
        made = await self._cluster.apply(manifest, child.uid if child is not None else "")
        self._children.made(manifest["kind"], made)
        self._applied[identity] = applied_hash(manifest)
        if manifest["kind"] == STATEFUL_SET.kind:
            self._generations[manifest["metadata"]["name"]] = int((made.get("metadata") or {}).get("generation") or 0)

    def _stale(self, manifest: Object, there: Mapping[Id, ChildView], generations: Mapping[str, int]) -> bool:
        identity = identity_of(manifest)
        if identity not in there or self._applied.get(identity) != applied_hash(manifest):
            return True
        # somebody else's edit raises the generation; no other kind tells so cheaply
        name = manifest["metadata"]["name"]
        return manifest["kind"] == STATEFUL_SET.kind and generations.get(name, 0) > self._generations[name]

    async def _delete(self, plan: Plan, there: Mapping[Id, ChildView]) -> None:
        """What is this job's, and only that very object, should another take its name meanwhile."""
        self._applied.clear()
        for ref in plan.delete:
            child = there.get((ref.kind, ref.name))
            if child is None or child.deleting or child.uid in self._deleted or not child.belongs_to(self._uid):
                continue
            await self._cluster.delete(resource_of(ref.api_version, ref.kind), self._key.namespace, ref.name, child.uid)
            self._deleted.add(child.uid)

    async def _make_once(self, manifest: Object, child: ChildView | None, looked: bool) -> None:
        """The token's Secret: what is there of this job stays, for running pods hold it. One that is missing is made, with the
        token that the plan has for this job."""
        if child is not None and child.belongs_to(self._uid) and (self.token or child.deleting):
            return
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        found = None if looked and child is None else await self._cluster.get(SECRET, namespace, name)
        if found is None:
            try:
                found = await self._cluster.create(manifest)
            except ConflictError:
                found = await self._cluster.get(SECRET, namespace, name)
        seen = child_view(SECRET.kind, found) if found is not None else None
        if found is None or seen is None or not self._usable(seen):
            raise NameTakenError(_told([self._whose(seen or ChildView(SECRET.kind, name, ""))]))
        self._children.made(SECRET.kind, found)
        self._take_token(found)

    async def _refuse_taken_names(
        self, plan: Plan, pods: Sequence[PodView], there: Mapping[Id, ChildView]
    ) -> dict[Id, ChildView]:
        """A new job makes nothing before all its names are known to be free, and adopts neither pods nor objects of anybody.
        Returns what is there after all."""
        earlier = sorted(pod.name for pod in pods if pod.job_uid != self._uid)
        taken = [f"Pod {name} (of an earlier job of this name; it goes)" for name in earlier]
        manifests = [*plan.once, *plan.apply]
        unseen = [manifest for manifest in manifests if identity_of(manifest) not in there]
        looked = await asyncio.gather(*(self._look(manifest) for manifest in unseen), return_exceptions=True)
        for error in looked:
            if isinstance(error, BaseException):
                raise error
        found = {(child.kind, child.name): child for child in looked if isinstance(child, ChildView)}
        known = [there[identity_of(manifest)] for manifest in manifests if identity_of(manifest) in there]
        taken += [why for child in (*known, *found.values()) if (why := self._taken(child, plan))]
        if taken:
            raise NameTakenError(_told(taken))
        return found

    async def _look(self, manifest: Object) -> ChildView | None:
        kind, name = identity_of(manifest)
        found = await self._cluster.look(resource_of(manifest["apiVersion"], kind), self._key.namespace, name)
        return child_view(kind, found) if found is not None else None

    def _usable(self, child: ChildView) -> bool:
        return child.belongs_to(self._uid) and not child.deleting

    def _taken(self, child: ChildView, plan: Plan) -> str:
        """Why the object is not for this job; empty when it is."""
        if self._usable(child):
            return ""
        if _named((child.kind, child.name), plan.adopt) and not child.owner and not child.deleting:
            return ""
        return self._whose(child)

    def _whose(self, child: ChildView) -> str:
        """The object and what is known of whose it is, for humans."""
        what = f"{child.kind} {child.name}"
        if child.deleting or (child.job_uid and child.owner):
            return f"{what} (of an earlier job of this name; it goes)"
        if child.kind == CLAIM.kind and not child.owner:
            kept = "kept by an earlier job of this name" if child.job_uid else "of nobody's that is known here"
            return f"{what} ({kept}; learner.adoptStorage: true takes it over and goes on with what it holds)"
        return what


def _named(identity: Id, refs: Sequence[Ref]) -> bool:
    return any((ref.kind, ref.name) == identity for ref in refs)


def _told(taken: Sequence[str]) -> str:
    more = f" and {len(taken) - TOLD} more" if len(taken) > TOLD else ""
    return (
        f"not this job's and left alone: {', '.join(taken[:TOLD])}{more}; nothing of these names is made or changed until they are gone: "
        "remove or rename what is not needed, or give the job another name"
    )


def identity_of(manifest: Mapping[str, Any]) -> Id:
    """Kind and name."""
    return str(manifest["kind"]), str(manifest["metadata"]["name"])


async def _all(calls: Sequence[Coroutine[Any, Any, None]]) -> BaseException | None:
    """At once. When some fail the others are made all the same; the first failure."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return next((answer for answer in answers if isinstance(answer, BaseException)), None)


def token_of(secret: Object) -> tuple[str, bool]:
    """The control token in a Secret as the API server returns it, and whether it is the only one there, which serves every role."""
    data = secret.get("data") or {}
    single = names.CONTROL_KEY not in data and names.TOKEN_KEY in data
    text = str(data.get(names.TOKEN_KEY if single else names.CONTROL_KEY) or "")
    try:
        token = base64.b64decode(text, validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        token = ""
    return token, single
