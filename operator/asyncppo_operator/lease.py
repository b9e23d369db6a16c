"""One active operator among several replicas, by a coordination.k8s.io Lease.

Owns the election: a pure judgement on the Lease as read, and the loop around it. Time is this machine's monotonic clock from when a
change of the Lease was seen, so that clocks need not agree. Written here because the client's own election raises where it creates
the Lease and where the API server is away.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asyncppo_operator.cluster import Cluster
from asyncppo_operator.errors import ApiError, ConflictError
from asyncppo_operator.kinds import LEASE
from asyncppo_operator.telemetry import Telemetry

log = logging.getLogger(__name__)

Object = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The Lease as last read: who, which renewal, and when this process first saw that renewal (monotonic seconds)."""

    holder: str = ""
    renewal: str = ""
    at: float = 0.0


def observe(seen: Seen, lease: Object, now: float) -> Seen:
    """What is known after reading the Lease again."""
    spec = lease.get("spec") or {}
    holder, renewal = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
    if (holder, renewal) == (seen.holder, seen.renewal):
        return seen
    return Seen(holder, renewal, now)


def may_take(seen: Seen, identity: str, duration: float, now: float) -> bool:
    """Whether the Lease is ours, nobody's, or not renewed for longer than it lasts."""
    return seen.holder in ("", identity) or now - seen.at > duration


class Election:
    """Take the Lease, then keep it; whoever cannot keep it must stop working before another may take it."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, identity: str, duration: int, telemetry: Telemetry
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration = duration
        self._telemetry = telemetry
        self._seen = Seen()
        self.leading = False

    async def acquire(self) -> None:
        """Return when the Lease is ours."""
        log.info("%s waits for the Lease %s/%s", self._identity, self._namespace, self._name)
        taken = await self._try()
        while not taken:
            await asyncio.sleep(self._duration / 5)
            taken = await self._try()
        self._lead(True)
        log.info("%s holds the Lease %s/%s", self._identity, self._namespace, self._name)

    async def keep(self) -> None:
        """Renew; return when it is lost, or could not be renewed for two thirds of its time: then another may soon have it."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._duration / 5)
            if await self._try():
                renewed = time.monotonic()
            elif self._seen.holder != self._identity or time.monotonic() - renewed > self._duration * 2 / 3:
                self._lead(False)
                log.error("%s has lost the Lease %s/%s", self._identity, self._namespace, self._name)
                return

    async def release(self) -> None:
        """Give it back, so that another replica need not wait. Best effort."""
        if not self.leading:
            return
        self._lead(False)
        try:
            lease = await self._cluster.get(LEASE, self._namespace, self._name)
            if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._cluster.replace(lease)
        except ApiError as error:
            log.warning("the Lease could not be given back: %s", error)

    def _lead(self, leading: bool) -> None:
        self.leading = leading
        self._telemetry.leading(leading)

    async def _try(self) -> bool:
        """Take or renew it once."""
        try:
            async with asyncio.timeout(self._duration / 3):
                return await self._take()
        except ConflictError:
            return False  # another was faster
        except (ApiError, TimeoutError) as error:
            why = str(error) or f"no answer within {self._duration / 3:.0f} s"
            log.warning("the Lease %s/%s could not be taken or renewed: %s", self._namespace, self._name, why)
            return False

    async def _take(self) -> bool:
        lease = await self._cluster.get(LEASE, self._namespace, self._name)
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if lease is None:
            body = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec(stamp, stamp, 0),
            }
            self._seen = observe(self._seen, await self._cluster.create(body), time.monotonic())
            return True
        self._seen = observe(self._seen, lease, time.monotonic())
        if not may_take(self._seen, self._identity, self._duration, time.monotonic()):
            return False
        old = lease.get("spec") or {}
        ours = self._seen.holder == self._identity
        turns = int(old.get("leaseTransitions") or 0) + (0 if ours else 1)
        lease["spec"] = self._spec(str(old.get("acquireTime") or stamp) if ours else stamp, stamp, turns)
        self._seen = observe(self._seen, await self._cluster.replace(lease), time.monotonic())
        return True

    def _spec(self, acquired: str, renewed: str, turns: int) -> Object:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration,
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": turns,
        }
