"""Why a StatefulSet makes no pods: quota, admission. Said only in its events, which are asked for when pods are missing.

Owns the question and how often it is asked.
"""

import time
from collections.abc import Mapping, Sequence

from asyncppo_operator.children import Key
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.kinds import EVENT
from asyncppo_operator.names import Role
from asyncppo_operator.views import PodView, SetView, brief

PATIENCE_SECONDS = 3.0
PERIOD_SECONDS = 15.0


class Shortfalls:
    """One job's. `found`: role → the newest complaint of its StatefulSet."""

    def __init__(self, cluster: Cluster, key: Key) -> None:
        self._cluster = cluster
        self._key = key
        self._missing_since: dict[Role, float] = {}
        self._asked_at: dict[Role, float] = {}
        self.found: dict[Role, str] = {}

    async def look(
        self, desired: Mapping[Role, int], pods: Sequence[PodView], sets: Mapping[Role, SetView]
    ) -> float | None:
        """Ask about the roles whose pods have been missing for a while. Returns when to look again (seconds). Raises ApiError."""
        now = time.monotonic()
        again: float | None = None
        for role, wanted in desired.items():
            existing = sum(pod.role is role for pod in pods)
            seen = sets.get(role)
            if existing >= wanted or seen is None:
                for known in (self._missing_since, self._asked_at, self.found):
                    known.pop(role, None)
                continue
            since = self._missing_since.setdefault(role, now)
            again = PATIENCE_SECONDS if not self.found.get(role) else PERIOD_SECONDS
            if now - since < PATIENCE_SECONDS or now - self._asked_at.get(role, -PERIOD_SECONDS) < PERIOD_SECONDS:
                continue
            self._asked_at[role] = now
            fields = f"involvedObject.uid={seen.uid},reason=FailedCreate"
            complaints, _ = await self._cluster.list(EVENT, self._key.namespace, fields=fields)
            if complaints:
                newest = max(complaints, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
                self.found[role] = brief(newest.get("message"))
        return again
