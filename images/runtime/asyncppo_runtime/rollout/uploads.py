"""Sending: finished trajectories and given-back leases as they come, unfinished ones at a Flush. Owns batches, order and retries.

Does not own what is kept (`outbox.py`). An upload the learner does not answer is sent again; the ledger makes that harmless.
"""

import asyncio
import logging

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.wire.experience import UPLOAD_BATCH, ManifestEntry
from asyncppo_runtime.rollout.crew import Crew
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.link import LearnerLink
from asyncppo_runtime.rollout.outbox import Outbox
from asyncppo_runtime.rollout.tally import Tally

BATCH = UPLOAD_BATCH
GATHER_SECONDS = 0.01  # finished trajectories of one moment travel together
RETRY_SECONDS = 0.5

log = logging.getLogger(__name__)


class Uploads:
    """Sends what `outbox` holds, and at a Flush what `crew` has in the making."""

    def __init__(self, link: LearnerLink, outbox: Outbox, crew: Crew, tally: Tally) -> None:
        self._link = link
        self._outbox = outbox
        self._crew = crew
        self._tally = tally
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._outbox.bell.wait()
            self._outbox.bell.clear()
            await asyncio.sleep(GATHER_SECONDS)
            try:
                await self.send()
            except (UnreachableError, RefusedError) as error:
                # refused as a whole: this incarnation is dead or the learner is not itself; the heartbeat finds out which
                log.warning("upload failed, will try again: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._outbox.bell.set()

    async def send(self) -> None:
        """Send all there is. Raises RefusedError, UnreachableError with the rest still here."""
        async with self._sending:
            await self._send_finished()
            returns = self._outbox.returns
            while returns:
                batch = sorted(returns)[:BATCH]
                await self._link.give_back(batch)
                returns.difference_update(batch)

    async def flush(self, version: int) -> list[ManifestEntry]:
        """Bring every segment of `version` to the learner, then list all that are held here unscored.

        Only while paused. Raises RefusedError, UnreachableError: then nothing is promised and the Flush can be sent again.
        """
        async with self._sending:
            await self._send_finished()
            partial = [episode for episode in self._crew.episodes.values() if _unrecorded(episode, version)]
            for first in range(0, len(partial), BATCH):
                batch = partial[first : first + BATCH]
                reply = await self._link.segments([episode.trajectory() for episode in batch])
                refused = {refusal.lease_id: refusal.reason for refusal in reply.refused}
                for episode in batch:
                    lease_id = episode.lease.lease_id
                    if lease_id in refused:
                        self._crew.drop(lease_id, refused[lease_id])
                        self._outbox.give_back(lease_id)
                    elif lease_id in reply.accepted:
                        episode.recorded.update(segment.index for segment in episode.segments)
        return self._outbox.entries(version, self._crew.episodes.values())

    async def _send_finished(self) -> None:
        while batch := self._outbox.next(BATCH):
            reply = await self._link.trajectories(batch)
            tokens = {t.lease_id: sum(segment.tokens for segment in t.segments) for t in batch}
            refused = self._outbox.settle(reply)
            for lease_id, reason in refused.items():
                log.warning("the learner refused the trajectory of lease %d: %s", lease_id, reason)
                self._tally.discarded_tokens[reason] += tokens[lease_id]
                self._outbox.give_back(lease_id)  # in case it is still held to be in flight
            if not refused and not reply.accepted:
                raise UnreachableError("the learner answered an upload without naming any of its leases")


def _unrecorded(episode: Episode, version: int) -> bool:
    return any(s.version == version and s.index not in episode.recorded for s in episode.segments)
