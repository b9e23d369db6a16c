"""The heartbeat: joins when there is no incarnation, then tells and hears once a second. Owns the rhythm.

Does not own what an answer means (`membership.py`). A deed an answer asks for (loading takes long) runs beside the next beats, so
that leases are renewed meanwhile; answers that come during a deed are not acted upon, the next one says the same again.
"""

import asyncio
import logging
from time import monotonic

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.sync.member import Mode
from asyncppo.wire.membership import Heartbeat, HeartbeatReply
from asyncppo_runtime.rollout.crew import Crew
from asyncppo_runtime.rollout.engines.interface import Engine
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.link import LearnerLink
from asyncppo_runtime.rollout.membership import Membership
from asyncppo_runtime.rollout.outbox import Outbox
from asyncppo_runtime.rollout.tally import Tally

BEAT_SECONDS = 1.0
TELL_SECONDS = 10.0

log = logging.getLogger(__name__)


class Heart:
    """Beats until cancelled."""

    def __init__(
        self,
        membership: Membership,
        link: LearnerLink,
        crew: Crew,
        outbox: Outbox,
        engine: Engine,
        gate: Gate,
        tally: Tally,
    ) -> None:
        self._membership = membership
        self._link = link
        self._crew = crew
        self._outbox = outbox
        self._engine = engine
        self._gate = gate
        self._tally = tally
        self._told = -TELL_SECONDS

    async def run(self) -> None:
        """Join and beat for ever. Raises RefusedError when the learner refuses this worker for good."""
        deed: asyncio.Task[None] | None = None
        try:
            while True:
                if deed is not None and deed.done():
                    deed.result()
                    deed = None
                if self._membership.guard.mode is Mode.OUT:
                    await self._membership.join()
                reply = await self._beat()
                if reply is not None and deed is None and not self._membership.busy:
                    deed = asyncio.create_task(self._follow(reply, self._membership.guard.incarnation))
                    await asyncio.wait([deed], timeout=BEAT_SECONDS)
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            if deed is not None:
                deed.cancel()

    async def _beat(self) -> HeartbeatReply | None:
        guard = self._membership.guard
        message = Heartbeat(
            envelope=guard.envelope(),
            version=guard.version,
            lease_ids=[*self._crew.episodes, *self._outbox.unacknowledged],
            paused=not self._gate.is_open,
            pause_expired=guard.pause_expired(monotonic()),
            sampled_tokens=self._tally.sampled_tokens,
            running=self._engine.running,
            outbox=len(self._outbox),
        )
        try:
            reply = await self._link.heartbeat(message)
        except (UnreachableError, RefusedError) as error:
            self._tell("heartbeat failed: %s", error)
            return None
        if self._membership.guard.incarnation == guard.incarnation:
            for lease_id in reply.lost_leases:
                self._crew.drop(lease_id, "lease_lost")
            self._outbox.seal(reply.sealed_version)
        return reply

    async def _follow(self, reply: HeartbeatReply, incarnation: int) -> None:
        try:
            await self._membership.heard(reply, incarnation)
        except (UnreachableError, RefusedError) as error:
            self._tell("%s", error)

    def _tell(self, text: str, error: Exception) -> None:
        """One line now and then, not one a second."""
        if monotonic() - self._told > TELL_SECONDS:
            self._told = monotonic()
            log.warning(text, error)
