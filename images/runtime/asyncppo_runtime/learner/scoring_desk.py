"""The learner's side of the Dedicated strategy: hands segments to old-logit workers, checks what comes back, notices their silence.

Owns the queue and who is heard of. Does not own the rules of assignment (`old_logprobs.queue`), the checks (`old_logprobs.verify`), the
recording (`training`), nor the weights (the strategy keeps them). Nothing here is durable: the ledger's unscored segments are the truth,
the queue is filled from them, so a restart loses no work.
"""

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

import msgspec
import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.errors import RefusedError
from asyncppo.wire.address import url_fault
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.old_logits import (
    GiveBackWork,
    Scored,
    ScoredReply,
    SegmentWork,
    TakeWork,
    Work,
    WorkerJoin,
    WorkerJoined,
)
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.scoring import ScoreOutcome, score_outcome
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import ScoreItem, SegmentKey, UnscoredSegment
from asyncppo_runtime.old_logprobs.availability import Availability
from asyncppo_runtime.old_logprobs.errors import QueueError
from asyncppo_runtime.old_logprobs.queue import Assignment, QueuedSegment, QueueLimits, ScoringQueue
from asyncppo_runtime.old_logprobs.scoring import Scoring, believe
from asyncppo_runtime.old_logprobs.verify import segment_bound, verify_scorer, verify_segment
from asyncppo_runtime.weights.errors import WeightsGoneError
from asyncppo_runtime.weights.serve import weights_handler
from asyncppo_runtime.weights.store import WeightStore

KIND = "exact_dedicated"
LONGEST_LEASE = 60.0
LONGEST_WAIT = 20.0
FAILURES_OF_A_VERSION = 3
"""Workers that could not load a version, in a row, before its weights count as gone."""

log = logging.getLogger(__name__)


class ScoringDesk:
    """Handlers of the old-logit routes. store: of train-side weights. take: records an outcome. finished: whether the job is over.

    weights: the handler of `routes.TRAIN_WEIGHTS`.
    """

    def __init__(
        self,
        spec: AsyncPPOJobSpec,
        ledger: OwnThread[Ledger],
        store: WeightStore,
        changed: Notice,
        take: Callable[[ScoreOutcome], Awaitable[bool]],
        finished: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._changed = changed
        self._take = take
        self._finished = finished
        self._bound = segment_bound(spec.old_logits, spec.optimizer.precision, spec.rollout.engine.precision)
        after = spec.old_logit.unavailable_after_seconds
        limits = QueueLimits(
            lease_seconds=min(LONGEST_LEASE, after),
            batch_tokens=spec.optimizer.micro_batch_tokens,
            backlog_lag=max(1, spec.staleness.max_versions),
        )
        self.queue: ScoringQueue[SegmentKey] = ScoringQueue(limits)
        self.availability = Availability(after, after / 4, time.monotonic())
        self.weights = weights_handler(store, self.train_record)
        self._incarnations = 0
        self._files: dict[int, VersionRecord] = {}
        self._failures: Counter[int] = Counter()
        self._gone: dict[int, str] = {}

    # --- what workers ask ---------------------------------------------------------------------------------------------------
    async def join(self, message: WorkerJoin) -> WorkerJoined:
        """A new incarnation; what an earlier one was doing goes back into the queue. RefusedError 400 BadAddress for a url that is none."""
        if fault := url_fault(message.url):
            raise RefusedError(400, "BadAddress", f"{message.name}: {fault}")
        self._incarnations += 1
        self.queue.register(message.name, self._incarnations)
        self.availability.heard(time.monotonic())
        log.info("old-logit worker %s at %s is incarnation %d", message.name, message.url, self._incarnations)
        self._changed.ring()
        return WorkerJoined(self._incarnations)

    async def take(self, message: TakeWork) -> Work:
        """Work, as soon as there is some within the worker's wait. RefusedError 409 NotJoined: join (again) first."""
        deadline = time.monotonic() + max(0.0, min(LONGEST_WAIT, message.wait_seconds))
        while True:
            tick = self._changed.tick
            self.availability.heard(time.monotonic())
            if self._finished():
                return Work(finished=True)
            await self.refill()
            work = await self._work(self._assign(message))
            left = deadline - time.monotonic()
            if work.segments or left <= 0:
                return work
            await self._changed.wait(tick, min(left, 1.0))

    async def scores(self, message: Scored) -> ScoredReply:
        """Check scores and record them. A segment that is scored or discarded already is no error, whoever sends it; so is work whose
        lease is over. RefusedError 409 WrongWeights: nothing of it is believed."""
        self.availability.heard(time.monotonic())
        record = await self._ledger(Ledger.version, message.version)
        if record is None:
            raise RefusedError(409, "UnknownVersion", f"version {message.version} was never published here")
        verdict = verify_scorer(record, message.version, message.train_hash)
        if not verdict.accepted:
            self._return_work(message.envelope)
            raise RefusedError(409, "WrongWeights", f"{message.envelope.target}: {verdict.message}")
        answers = {SegmentKey(score.lease_id, score.index, score.digest): score.logprobs for score in message.scores}
        items = await self._ledger(Ledger.items, list(answers))
        usable = [
            item for item in items if item.version == record.version and len(answers[item.key]) == item.end - item.start
        ]
        scoring: Scoring[ScoreItem] = Scoring([], [], [], {}, {})
        made = [(item, torch.tensor(answers[item.key], dtype=torch.float64)) for item in usable]
        believe(made, record.version, message.train_hash, self._bound, scoring)
        await self._take(score_outcome(scoring, KIND))
        for item in usable:
            self.queue.complete(item.key, item.key.digest)
        self._failures.pop(record.version, None)
        refused = len(items) - len(usable) + len(scoring.refused)
        self._changed.ring()
        return ScoredReply(len(scoring.scored), len(answers) - len(items), refused)

    async def give_back(self, message: GiveBackWork) -> ScoredReply:
        """A worker could not load what it was to score with; another may. The same failure again and again means the weights are gone."""
        self.availability.heard(time.monotonic())
        worker = message.envelope.target
        log.warning("%s gives back work of version %d: %s", worker, message.version, message.message)
        self._return_work(message.envelope)
        self._failures[message.version] += 1
        if self._failures[message.version] >= FAILURES_OF_A_VERSION:
            self._gone[message.version] = message.message
        self._changed.ring()
        return ScoredReply(0, 0, 0)

    async def train_record(self, version: int) -> VersionRecord | None:
        """The record of a version's train-side file; None when there is no such file (any more)."""
        known = self._files.get(version)
        record = await self._ledger(Ledger.version, version)
        if record is None or known is not None:
            return known
        try:
            path = self._store.open(version)
            with path.open("rb") as file:
                size = path.stat().st_size
                digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
        except (WeightsGoneError, OSError):
            return None
        self._files[version] = msgspec.structs.replace(
            record, published_hash=record.train_hash, file_size=size, file_sha256=digest.hexdigest()
        )
        return self._files[version]

    # --- what the learner asks ----------------------------------------------------------------------------------------------
    def unavailable(self, versions: Collection[int]) -> dict[int, str]:
        """Which of these versions cannot be scored exactly now, and why."""
        if silence := self.silence():
            return dict.fromkeys(versions, silence)
        return {version: self._gone[version] for version in versions if version in self._gone}

    def silence(self) -> str:
        """Why no worker can be counted on now; empty when one can. A worker that has work in time is busy, not silent."""
        now = time.monotonic()
        if self.queue.busy(now) or self.availability.look(now):
            return ""
        seconds = now - self.availability.heard_at
        return (
            f"no old-logit worker can be counted on (the last sign of life was {seconds:.0f} s ago); see their logs, or raise "
            "oldLogit.unavailableAfterSeconds"
        )

    def behind(self) -> str:
        """Why neither a publication nor a new lease is due now: scoring lags. Empty when it does not, or when nobody scores."""
        if self.silence():
            return ""
        return self.queue.holds_back_publication()

    async def refill(self) -> None:
        """Make the queue what the ledger says is unscored, and take back what is overdue."""
        unscored = await self._ledger(Ledger.unscored_keys)
        wanted = {segment.key: segment for segment in unscored if segment.version not in self._gone}
        for queued in self.queue.segments():
            if queued.key not in wanted:
                self.queue.complete(queued.key, queued.digest)
        new = [segment for segment in wanted.values() if not self.queue.holds(segment.key)]
        for segment in await self._labelled(new):
            self.queue.add(QueuedSegment(segment.key, segment.version, segment.end, segment.key.digest))
        overdue = self.queue.expire(time.monotonic())
        if overdue:
            log.warning("%d segments were not scored in time; they go back", len(overdue))

    def announce(self, version: int) -> None:
        """A version is published; files of versions long gone are forgotten."""
        self.queue.announce(version)
        here = set(self._store.versions())
        self._files = {known: record for known, record in self._files.items() if known in here}

    async def _labelled(self, segments: list[UnscoredSegment]) -> list[UnscoredSegment]:
        """Those whose label agrees with their version's record; the others are discarded at once."""
        records = {
            version: await self._ledger(Ledger.version, version)
            for version in {segment.version for segment in segments}
        }
        good, outcome = [], ScoreOutcome()
        for segment in segments:
            verdict = verify_segment(segment.version, segment.weights_hash, records[segment.version])
            if verdict.accepted:
                good.append(segment)
            else:
                outcome.refuse(segment.key, verdict)
        if outcome.discarded:
            await self._take(outcome)
        return good

    def _return_work(self, sender: Envelope) -> None:
        """What the sender has goes back. RefusedError 409 NotJoined for a process that has been replaced: its successor keeps its work."""
        try:
            self.queue.give_back(sender.target, sender.incarnation)
        except QueueError as error:
            raise RefusedError(409, "NotJoined", str(error)) from error

    def _assign(self, message: TakeWork) -> Assignment[SegmentKey]:
        envelope: Envelope = message.envelope
        try:
            return self.queue.assign(envelope.target, envelope.incarnation, message.loaded_version, time.monotonic())
        except QueueError as error:
            raise RefusedError(409, "NotJoined", str(error)) from error

    async def _work(self, assignment: Assignment[SegmentKey]) -> Work:
        """The assignment with its contexts and where the weights are; empty when either has gone meanwhile."""
        waiting = self.queue.backlog().segments
        if not assignment.segments:
            return Work(waiting=waiting)
        record = await self.train_record(assignment.version)
        if record is None:
            self._gone[assignment.version] = (
                f"the train-side weights of version {assignment.version} are not on the volume any more"
            )
            self._changed.ring()
            return Work(waiting=waiting)
        items = await self._ledger(Ledger.items, [segment.key for segment in assignment.segments])
        segments = [
            SegmentWork(item.key.lease_id, item.key.index, item.key.digest, item.start, item.end, item.token_ids)
            for item in items
        ]
        return Work(record, segments, self.queue.limits.lease_seconds, waiting)
