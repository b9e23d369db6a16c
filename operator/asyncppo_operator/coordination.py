"""One job's version-sync coordinator, run inside the operator: the same one the local runner runs.

Owns its life: begun when the learner has an address, begun anew when that changes or when it breaks. Does not own the protocol
(`asyncppo.sync`). The operator may die in the middle of a sync: the learner's ledger knows, and the next coordinator goes on.
"""

import asyncio
import logging
import time

from asyncppo.api.job import AsyncPPOJob
from asyncppo.metrics.metric import Distribution
from asyncppo.sync.coordinator import Coordinator
from asyncppo.sync.limits import SyncLimits
from asyncppo.sync.machine import State
from asyncppo.wire.client import WireClient
from asyncppo_operator.situation import SyncReport
from asyncppo_operator.syncbook import SyncBook

RETRY_SECONDS = 2.0

log = logging.getLogger(__name__)


class Coordination:
    """One job's coordinator, or none.

    identity: this operator's; one that is started again under the same identity takes up its open epoch at once, another one when
    that has stalled.
    """

    def __init__(self, identity: str) -> None:
        self._name = f"operator-{identity}"
        self._book = SyncBook()
        self._aim: tuple[str, str] = ("", "")
        self._limits = SyncLimits()
        self._task: asyncio.Task[None] | None = None
        self._broken = ""

    @property
    def results(self) -> dict[str, int]:
        """Syncs by how they ended."""
        return dict(self._book.results)

    @property
    def fenced(self) -> int:
        """Rollouts fenced so far."""
        return self._book.fenced

    @property
    def seconds(self) -> dict[str, Distribution]:
        """Phase → how long it took, over the slowest rollout."""
        return self._book.seconds

    def aim(self, base: str, token: str, job: AsyncPPOJob, single_token: bool = False) -> None:
        """Coordinate the job whose learner is at `base`; an empty one: do not. Changed limits hold from the next coordinator on.
        token: control's. single_token: it is the rollouts' too."""
        limits = SyncLimits.of(job.spec)
        if ((base, token), limits) == (self._aim, self._limits) and (self._task is not None or not base):
            return
        self.close()
        self._aim, self._limits = (base, token), limits
        if base:
            self._task = asyncio.create_task(
                self._coordinate(base, token, limits, single_token), name=f"coordinate {base}"
            )

    @property
    def report(self) -> SyncReport:
        """How it is."""
        patience = max(self._limits.pause, self._limits.load)
        error = self._broken or self._book.error(time.monotonic(), patience)
        return SyncReport(running=self._task is not None and not self._task.done(), error=error)

    def close(self) -> None:
        """End it; an open epoch is taken over by whoever comes next."""
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _coordinate(self, base: str, token: str, limits: SyncLimits, single_token: bool) -> None:
        """Until the job is over. A coordinator that breaks is told, and replaced: the ledger arbitrates between them."""
        while True:
            try:
                async with WireClient(token) as client:
                    await Coordinator(
                        client,
                        base,
                        self._name,
                        limits,
                        self._turned,
                        token_of_member=(lambda name: token) if single_token else None,
                    ).run()
                self._broken = ""
                return
            except Exception as error:
                log.exception("the coordinator of %s broke", base)
                self._broken = f"the coordinator broke and is begun anew: {type(error).__name__}: {error}"
                await asyncio.sleep(RETRY_SECONDS)

    def _turned(self, before: State, after: State, seconds: float) -> None:
        self._book.turned(before, after, seconds, time.monotonic())
