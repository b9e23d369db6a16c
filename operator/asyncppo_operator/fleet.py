"""All jobs of this operator: begins and ends their loops, feeds them with what the watches see, and looks again for what these missed.

Owns the set of loops and the informers. Does not own a loop's work (`reconcile.py`).
"""

import asyncio
import logging
from typing import Any

import aiohttp

from asyncppo.wire.client import open_session
from asyncppo_operator import names
from asyncppo_operator.children import Children, Key
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.errors import ApiError, NotFoundError
from asyncppo_operator.informer import Informer
from asyncppo_operator.installkey import install_key
from asyncppo_operator.kinds import (
    ACCOUNT,
    BUDGET,
    BUDGET_BETA,
    CLAIM,
    CONFIG_MAP,
    EVENT,
    JOB,
    NETWORK_POLICY,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    Resource,
)
from asyncppo_operator.plan.planner import Facts
from asyncppo_operator.reconcile import JobLoop, Tools
from asyncppo_operator.rights import missing_rights
from asyncppo_operator.settings import Settings
from asyncppo_operator.shortfalls import FIELDS
from asyncppo_operator.situation import Problem
from asyncppo_operator.slots import Slots
from asyncppo_operator.telemetry import Telemetry

log = logging.getLogger(__name__)

Object = dict[str, Any]

# A broken watch is mended in seconds, or it is told.
BLIND_AFTER_SECONDS = 30.0


class Fleet:
    """Start it, feed it jobs, stop it. Stopping leaves every pod as it is."""

    def __init__(self, cluster: Cluster, settings: Settings, telemetry: Telemetry, identity: str) -> None:
        self._cluster = cluster
        self._settings = settings
        self._telemetry = telemetry
        self._identity = identity
        self._children = Children(self._touched)
        self._tools: Tools | None = None
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.informers: list[Informer] = []
        self.loops: dict[Key, JobLoop] = {}

    @property
    def places(self) -> list[str | None]:
        """Namespaces to watch; [None]: all at once."""
        return list(self._settings.namespaces) or [None]

    async def start(self) -> None:
        """Learn what the API server serves, begin to watch children. ApiError when it does not answer, or does not know the jobs' kind."""
        if not await self._cluster.serves(JOB):
            raise NotFoundError(f"the API server does not serve {JOB.api_version} {JOB.plural}: apply the CRDs")
        served = "policy/v1" if await self._cluster.serves(BUDGET) else "policy/v1beta1"
        key = await install_key(self._cluster, self._settings.namespace, self._settings.install_key_secret)
        self._session = open_session()
        self._tools = Tools(
            cluster=self._cluster,
            children=self._children,
            session=self._session,
            settings=self._settings,
            telemetry=self._telemetry,
            slots=Slots(self._settings.workers, self._settings.builders),
            facts=Facts(budget_api=served),
            identity=self._identity,
            install_key=key,
            blind=self.blind,
        )
        budget = BUDGET if served == BUDGET.api_version else BUDGET_BETA
        for place in self.places:
            self._watch_children(place)
            for resource in (SERVICE, CONFIG_MAP, SECRET, ACCOUNT, CLAIM, NETWORK_POLICY, budget):
                self._watch_names(resource, place)
        self._tasks.append(asyncio.create_task(self._look_after(), name="relist jobs"))

    def _watch_children(self, place: str | None) -> None:
        children = self._children
        ours, complaints = names.MANAGED_SELECTOR, children.complaints
        for resource, labels, fields, listed, changed in (
            (POD, ours, "", children.pods_listed, children.pod_changed),
            (STATEFUL_SET, ours, "", children.sets_listed, children.set_changed),
            (EVENT, "", FIELDS, complaints.listed, complaints.changed),
        ):
            informer = Informer(self._cluster, resource, place, labels, fields, self._telemetry, listed, changed)
            self.informers.append(informer)
            self._tasks.append(asyncio.create_task(informer.run(), name=f"watch {informer.where}"))

    def _watch_names(self, resource: Resource, place: str | None) -> None:
        """That these objects are there, and whose, is all that is asked: their contents, tokens among them, are not even sent."""
        children, kind = self._children, resource.kind
        informer = Informer(
            self._cluster,
            resource,
            place,
            names.MANAGED_SELECTOR,
            "",
            self._telemetry,
            lambda namespace, objects: children.objects_listed(kind, namespace, objects),
            lambda event, raw: children.object_changed(kind, event, raw),
            metadata_only=True,
        )
        self.informers.append(informer)
        self._tasks.append(asyncio.create_task(informer.run(), name=f"watch {informer.where}"))

    async def stop(self) -> None:
        """End all loops and watches."""
        for loop in self.loops.values():
            loop.close()
        self.loops.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._session is not None:
            await self._session.close()

    def blind(self) -> Problem | None:
        """Why the jobs' children are not known: never listed, or out of sight for long. An empty reason: give it a moment."""
        for informer in self.informers:
            if informer.kind == EVENT.kind:
                continue  # they only explain
            age = self._telemetry.watch_age(informer.kind)
            if informer.synced and (not informer.error or age is None or age < BLIND_AFTER_SECONDS):
                continue
            if not informer.error:
                return Problem("", "")
            return Problem(informer.reason, informer.error)
        return None

    def seen(self, raw: Object) -> None:
        """A job as the API server has it now."""
        # the managed fields are as long as all the rest
        metadata = {name: value for name, value in raw["metadata"].items() if name != "managedFields"}
        raw = {**raw, "metadata": metadata}
        key = Key(str(metadata["namespace"]), str(metadata["name"]))
        loop = self.loops.get(key)
        if loop is not None and loop.uid != metadata["uid"]:
            self.deleted(key, loop.uid)
            loop = None
        if loop is None:
            assert self._tools is not None, "Fleet.seen before Fleet.start"
            loop = JobLoop(self._tools, key, raw, lambda: self.deleted(key, str(metadata["uid"])))
            self.loops[key] = loop
            loop.start()
        else:
            loop.changed(raw)

    def deleted(self, key: Key, uid: str) -> None:
        """A job is no more; what it owned goes with it by the cluster's garbage collection."""
        loop = self.loops.get(key)
        if loop is not None and loop.uid == uid:
            del self.loops[key]
            loop.close()

    def _touched(self, key: Key) -> None:
        if (loop := self.loops.get(key)) is not None:
            loop.wake()

    async def _look_after(self) -> None:
        """Every now and then: which jobs are there really, and is a right missing?"""
        while True:
            try:
                self._telemetry.rights(await missing_rights(self._cluster, self.places))
                await self._relist()
            except ApiError as error:
                log.warning("the jobs could not be listed: %s", error)
            await asyncio.sleep(self._settings.timing.relist_seconds)

    async def _relist(self) -> None:
        """Notice what a watch has missed: jobs that came, changed or went unseen."""
        for place in self.places:
            before = {key: loop.uid for key, loop in self.loops.items() if place in (None, key.namespace)}
            objects, _ = await self._cluster.list(JOB, place)
            self._telemetry.heard(JOB.kind)
            there = {(str(o["metadata"]["namespace"]), str(o["metadata"]["name"])): o for o in objects}
            for key, uid in before.items():
                if tuple(key) not in there:
                    self.deleted(key, uid)
            for raw in objects:
                self.seen(raw)
