"""A list-and-watch of one kind in one place, for ever: lists, watches, and begins anew when the stream breaks.

Owns the loop and what it tells about its own health. Does not own what is done with the objects. Kopf watches the jobs; their
children are watched here, because whoever lists anew must also learn what is gone.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from asyncppo_operator.cluster import Cluster
from asyncppo_operator.errors import ApiError, ForbiddenError
from asyncppo_operator.kinds import Resource
from asyncppo_operator.telemetry import Telemetry

Object = dict[str, Any]

WATCH_SECONDS = 240
RETRY_SECONDS = 1.0
RETRY_LIMIT_SECONDS = 30.0

log = logging.getLogger(__name__)


class Informer:
    """`listed(namespace, objects)` after each list: all there is. `changed(type, object)` for each event after it."""

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        namespace: str | None,
        labels: str,
        fields: str,
        telemetry: Telemetry,
        listed: Callable[[str | None, list[Object]], None],
        changed: Callable[[str, Object], None],
        metadata_only: bool = False,
    ) -> None:
        self._cluster = cluster
        self._resource = resource
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._telemetry = telemetry
        self._listed = listed
        self._changed = changed
        self._metadata_only = metadata_only
        self.synced = False
        self.error = ""
        self.reason = ""

    @property
    def kind(self) -> str:
        """Of the objects watched."""
        return self._resource.kind

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self._resource.plural} in {self._namespace or 'all namespaces'}"

    async def run(self) -> None:
        """Until cancelled. A failure is kept in `error`, logged, counted and tried again, ever more slowly."""
        wait = RETRY_SECONDS
        while True:
            try:
                await self._once()
                wait = RETRY_SECONDS
                continue
            except ForbiddenError as error:
                self.error = f"no right to list or watch {self.where}: {error}"
                reason = self.reason = error.reason
            except ApiError as error:
                self.error = f"cannot watch {self.where}: {error}"
                # 410: the version is too old to continue from; listing anew is the normal way on
                reason = self.reason = "Expired" if error.status == 410 else error.reason
                if error.status == 410:
                    wait = 0.0
            log.warning("%s; next try in %.0f s", self.error, wait)
            self._telemetry.watch_restarted(self._resource.kind, reason)
            await asyncio.sleep(wait)
            wait = min(RETRY_LIMIT_SECONDS, max(RETRY_SECONDS, 2 * wait))

    async def _once(self) -> None:
        """One list, then watches from there until one fails."""
        objects, version = await self._cluster.list(
            self._resource, self._namespace, self._labels, self._fields, self._metadata_only
        )
        self._heard()
        self._listed(self._namespace, objects)
        self.synced = True
        while True:
            stream = self._cluster.watch(
                self._resource,
                self._namespace,
                self._labels,
                version,
                WATCH_SECONDS,
                self._fields,
                self._metadata_only,
            )
            async for event in stream:
                self._heard()
                found = event.get("object") or {}
                version = str((found.get("metadata") or {}).get("resourceVersion") or version)
                if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                    self._changed(str(event["type"]), found)
            self._heard()

    def _heard(self) -> None:
        self.error = ""
        self._telemetry.heard(self._resource.kind)
