"""Carries out one job's plans: applies what is not as it should be, creates what must be made once, deletes what must go.

Owns what this process has applied already, so that an unchanged plan costs no call. Does not own the plan.
"""

import asyncio
import base64
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from asyncppo_operator import names
from asyncppo_operator.children import Key
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.errors import ConflictError
from asyncppo_operator.kinds import CLAIM, JOB, POD, SECRET, resource_of
from asyncppo_operator.names import Role
from asyncppo_operator.plan.planner import Plan, applied_hash
from asyncppo_operator.views import PodView, SetView

Object = dict[str, Any]

# A StatefulSet that was applied this long ago and is still not seen was deleted by somebody.
UNSEEN_SECONDS = 10.0


class NameTakenError(ConflictError):
    """Objects of an earlier job of the same name are still there; they go when the cluster has collected them."""

    reason = "NameStillTaken"


class Executor:
    """One job's hands. All methods raise ApiError."""

    def __init__(self, cluster: Cluster, key: Key, uid: str) -> None:
        self._cluster = cluster
        self._key = key
        self._uid = uid
        self._applied: dict[tuple[str, str], str] = {}
        self._generations: dict[str, int] = {}
        self._applied_at: dict[str, float] = {}
        self._removed = False
        self._free = False
        self.token = ""

    async def carry_out(
        self, plan: Plan, pods: Sequence[PodView], sets: Mapping[Role, SetView], new: bool, afresh: bool
    ) -> None:
        """`new`: a job never seen before. `afresh`: apply everything, whatever was applied already."""
        if plan.delete_job:
            await self._cluster.delete(JOB, *self._key, uid=self._uid)
            return
        if plan.delete:
            await self._delete(plan, sets, afresh)
            return
        self._removed = False
        if new and not self._free:
            await self._refuse_taken_name(pods, sets)
            self._free = True
        # after the check: a token of the job's own says also to the next operator that the name was free
        for manifest in plan.once:
            await self._once(manifest, new)
        by_name = {view.name: view for view in sets.values()}
        stale = [manifest for manifest in plan.apply if afresh or self._stale(manifest, by_name)]
        # what makes pods comes after all that its pods find or are guarded by
        await _all([self._apply(manifest) for manifest in stale if manifest["kind"] != "StatefulSet"])
        await _all([self._apply(manifest) for manifest in stale if manifest["kind"] == "StatefulSet"])
        outdated = {pod.name: pod for pod in pods}
        for name in plan.restart:
            await self._cluster.delete(POD, self._key.namespace, name, uid=outdated[name].uid)

    async def _apply(self, manifest: Object) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._applied.pop((kind, name), None)
        made = await self._cluster.apply(manifest)
        self._applied[(kind, name)] = applied_hash(manifest)
        if kind == "StatefulSet":
            self._generations[name] = int((made.get("metadata") or {}).get("generation") or 0)
            self._applied_at[name] = time.monotonic()

    def _stale(self, manifest: Object, sets: Mapping[str, SetView]) -> bool:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if self._applied.get((kind, name)) != applied_hash(manifest):
            return True
        if kind != "StatefulSet":
            return False
        seen = sets.get(name)
        if seen is None:
            return time.monotonic() - self._applied_at[name] > UNSEEN_SECONDS
        # somebody else's edit raises the generation
        return seen.generation > self._generations[name]

    async def _delete(self, plan: Plan, sets: Mapping[Role, SetView], afresh: bool) -> None:
        if self._removed and not sets and not afresh:
            return
        self._applied.clear()
        for ref in plan.delete:
            await self._cluster.delete(resource_of(ref.api_version, ref.kind), self._key.namespace, ref.name)
        self._removed = True

    async def _once(self, manifest: Object, new: bool) -> None:
        """The token: what is there stays, for running pods hold it."""
        if self.token:
            return
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        found = None if new else await self._cluster.get(SECRET, namespace, name)
        if found is None:
            try:
                found = await self._cluster.create(manifest)
            except ConflictError:
                found = await self._cluster.get(SECRET, namespace, name)
        if found is None or self._foreign(found):
            raise NameTakenError(f"Secret {name} belongs to an earlier job of this name and has not gone yet")
        self.token = token_of(found)

    async def recall_token(self) -> None:
        """Take the token that the job has already, if it has one."""
        found = await self._cluster.get(SECRET, self._key.namespace, names.token(self._key.name))
        if found is not None and not self._foreign(found):
            self.token = token_of(found)

    async def _refuse_taken_name(self, pods: Sequence[PodView], sets: Mapping[Role, SetView]) -> None:
        """A new job must not adopt the pods or the ledger of a deleted one. A volume kept on purpose has no owner and may be used."""
        left = [pod.name for pod in pods if pod.job_uid != self._uid]
        left += [view.name for view in sets.values() if view.job_uid != self._uid]
        if left:
            raise NameTakenError(f"{', '.join(sorted(left)[:5])} of an earlier job of this name have not gone yet")
        claim = await self._cluster.get(CLAIM, self._key.namespace, names.storage(self._key.name))
        if claim is not None and self._foreign(claim):
            raise NameTakenError(f"the volume {names.storage(self._key.name)} of an earlier job has not gone yet")

    def _foreign(self, found: Object) -> bool:
        metadata = found.get("metadata") or {}
        owners = [str(owner.get("uid")) for owner in metadata.get("ownerReferences") or []]
        return bool(metadata.get("deletionTimestamp")) or (bool(owners) and self._uid not in owners)


async def _all(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """At once. When some fail the others are made all the same, and the first failure is raised."""
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer


def token_of(secret: Object) -> str:
    """The token in a Secret as the API server returns it."""
    data = secret.get("data") or {}
    return base64.b64decode(str(data.get(names.TOKEN_KEY) or "")).decode()
