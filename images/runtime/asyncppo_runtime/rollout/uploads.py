"""Sending: finished trajectories and given-back leases as they come, unfinished ones at a Flush. Owns batches, order and retries.

Does not own what is kept (`outbox.py`). An upload the learner does not answer is sent again; the ledger makes that harmless. One that
it cannot read is halved until the trajectory that is to blame is alone: that one is reported as malformed, the others arrive.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.printable import printable
from asyncppo.wire.experience import (
    MALFORMED_ENDING,
    UPLOAD_BATCH,
    ManifestEntry,
    Trajectory,
    UploadReply,
    unreadable,
)
from asyncppo_runtime.rollout.crew import Crew
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.link import LearnerLink
from asyncppo_runtime.rollout.outbox import Outbox
from asyncppo_runtime.rollout.tally import Tally

BATCH = UPLOAD_BATCH
UNREADABLE = frozenset({400, 413})  # what is sent is wrong, and will be: no such message, too large
HOPELESS = frozenset({"malformed", "token_out_of_vocabulary", "context_exceeded"})  # refused, and would be again
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
            partial = {
                lease_id: episode for lease_id, episode in self._crew.episodes.items() if _unrecorded(episode, version)
            }
            waiting = list(partial.values())
            for first in range(0, len(waiting), BATCH):
                batch = [episode.trajectory() for episode in waiting[first : first + BATCH]]
                async for sent, answer in self._singled_out(self._link.segments, batch):
                    self._flushed(sent, answer, partial)
            await self._send_finished()
        return self._outbox.entries(version, self._crew.episodes.values())

    def _flushed(self, sent: list[Trajectory], answer: UploadReply | str, partial: dict[int, Episode]) -> None:
        if isinstance(answer, str):
            for trajectory in sent:
                self._lost(trajectory, MALFORMED_ENDING, answer)
            return
        refused = {refusal.lease_id: refusal.reason for refusal in answer.refused}
        for trajectory in sent:
            lease_id = trajectory.lease_id
            if refused.get(lease_id) in HOPELESS:
                self._lost(trajectory, refused[lease_id], f"the learner refused it unfinished: {refused[lease_id]}")
            elif lease_id in refused:
                self._crew.drop(lease_id, refused[lease_id])
                self._outbox.give_back(lease_id)
            elif lease_id in answer.accepted:
                partial[lease_id].recorded.update(segment.index for segment in trajectory.segments)

    def _lost(self, trajectory: Trajectory, reason: str, why: str) -> None:
        """An unfinished one that the learner can never take. Given back, it would be granted again for ever: its place loses an attempt."""
        log.error("the episode of lease %d cannot be uploaded: %s", trajectory.lease_id, printable(why, lines=False))
        self._crew.drop(trajectory.lease_id, reason)
        self._outbox.put(unreadable(trajectory.lease_id, trajectory.group_id, why))

    async def _send_finished(self) -> None:
        while batch := self._outbox.next(BATCH):
            async for sent, answer in self._singled_out(self._link.trajectories, batch):
                if isinstance(answer, str):
                    self._report(sent[0], answer)
                else:
                    self._settle(sent, answer)

    def _settle(self, sent: list[Trajectory], reply: UploadReply) -> None:
        tokens = {t.lease_id: sum(segment.tokens for segment in t.segments) for t in sent}
        refused = self._outbox.settle(reply)
        for lease_id, reason in refused.items():
            log.warning("the learner refused the trajectory of lease %d: %s", lease_id, reason)
            self._tally.discarded_tokens[reason] += tokens.get(lease_id, 0)
            self._outbox.give_back(lease_id)  # in case it is still held to be in flight
        if not refused and not reply.accepted:
            raise UnreachableError("the learner answered an upload without naming any of its leases")

    def _report(self, trajectory: Trajectory, reason: str) -> None:
        """One that the learner can never take: it hears that instead, and counts it as a loss of its place."""
        log.error(
            "the trajectory of lease %d cannot be uploaded: %s", trajectory.lease_id, printable(reason, lines=False)
        )
        self._tally.discarded_tokens["malformed"] += sum(segment.tokens for segment in trajectory.segments)
        if not self._outbox.replace_unreadable(trajectory.lease_id, reason):
            self._outbox.give_back(trajectory.lease_id)

    async def _singled_out(
        self, send: Callable[[list[Trajectory]], Awaitable[UploadReply]], batch: list[Trajectory]
    ) -> AsyncIterator[tuple[list[Trajectory], UploadReply | str]]:
        """What came of `batch`, in as many parts as it takes: trajectories and the answer to them, or one and why it cannot be read.

        Raises RefusedError, UnreachableError for whatever is not the batch's own fault.
        """
        parts = [batch]
        while parts:
            part = parts.pop()
            try:
                yield part, await send(part)
                continue
            except RefusedError as error:
                if error.status not in UNREADABLE:
                    raise
                reason = str(error)
            except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
                reason = f"{type(error).__name__}: {error}"
            if len(part) == 1:
                yield part, reason
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]


def _unrecorded(episode: Episode, version: int) -> bool:
    return any(s.version == version and s.index not in episode.recorded for s in episode.segments)
