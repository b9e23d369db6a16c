"""The training loop: batch → scores → gradient → (sync) step → publish. Owns the order and what is pending; computes nothing.

The gradient of the next step is computed while rollouts go on sampling. Only what the coordinator asks for stops them: scoring what
is left of the resident version, the step itself, the publication (`synchronization`). A step is taken once: until its publication
is in the ledger it exists in memory only, and a restart computes it anew from the same ledger.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from asyncppo.api.correction import OnUnavailable
from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.errors import RefusedError
from asyncppo.faults import SCORING, Moment, inside
from asyncppo.report.measures import UpdateMetrics
from asyncppo_runtime.learner.errors import GuardError, LearnerError, OldLogitsError
from asyncppo_runtime.learner.guards import DiscrepancyGuard
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.progress import Progress
from asyncppo_runtime.learner.publication import Publication
from asyncppo_runtime.learner.scoring import UNAVAILABLE, ScoreOutcome
from asyncppo_runtime.learner.scoring_desk import ScoringDesk
from asyncppo_runtime.learner.selection import GroupState, Selection, select_batch
from asyncppo_runtime.learner.stopwatch import Stopwatch
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.errors import LedgerError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import ScoreItem, SegmentKey
from asyncppo_runtime.old_logprobs.interface import Timing
from asyncppo_runtime.old_logprobs.verify import segment_bound
from asyncppo_runtime.weights.errors import WeightsError

log = logging.getLogger(__name__)

SCORE_CHUNK = 1024
LOOK_AGAIN_SECONDS = 0.5


@dataclass
class Pending:
    """A gradient waiting for its step. metrics lack what only the step knows. stepped: the optimizer has moved the parameters."""

    groups: tuple[int, ...]
    metrics: UpdateMetrics
    since: float
    stepped: bool = False


class Training:
    """Runs the job's updates; everything that blocks happens on the trainer's and the ledger's own threads.

    update: optimizer steps taken so far. timing: when the strategy's old log-probs come to be; with BEFORE_SEAL segments are scored
    under the resident version as they come. desk: set with BY_WORKERS.
    """

    def __init__(
        self,
        spec: AsyncPPOJobSpec,
        ledger: OwnThread[Ledger],
        trainer: OwnThread[Trainer],
        publication: Publication,
        progress: Progress,
        stopwatch: Stopwatch,
        changed: Notice,
        metrics_file: Path,
        update: int,
        timing: Timing,
    ) -> None:
        self._spec = spec
        self._ledger = ledger
        self._trainer = trainer
        self._publication = publication
        self._progress = progress
        self._stopwatch = stopwatch
        self._changed = changed
        self._metrics_file = metrics_file
        self.timing = timing
        self._scores_at_arrival = timing is Timing.BEFORE_SEAL
        self._pending: Pending | None = None
        self._trainer_lock = asyncio.Lock()
        self._started = time.monotonic()
        self._seconds_before: dict[str, float] = {}
        self.update = update
        self.batch_progress = 0.0
        self.on_update: Callable[[UpdateMetrics], None] = lambda _: None
        self.failure: LearnerError | None = None
        self._guard = DiscrepancyGuard(
            segment_bound(spec.old_logits, spec.optimizer.precision, spec.rollout.engine.precision)
        )
        self.desk: ScoringDesk | None = None

    @property
    def wanted(self) -> bool:
        """A gradient waits for a sync."""
        return self._pending is not None

    @property
    def wanted_since(self) -> float | None:
        """Since when (monotonic seconds)."""
        return self._pending.since if self._pending is not None else None

    @property
    def updates_left(self) -> int:
        """Optimizer steps still to take, the pending one included."""
        return max(0, self._spec.algorithm.updates - self.update)

    @property
    def segments_waiting(self) -> int:
        """Segments that wait for an old-logit worker."""
        return self.desk.queue.backlog().segments if self.desk is not None else 0

    @property
    def unavailable(self) -> str:
        """Why old-logit workers cannot be counted on at the moment; empty when they can, or are not needed."""
        return self.desk.silence() if self.desk is not None else ""

    async def run(self) -> None:
        """Until the last update is published and announced. Raises LearnerError with the root cause."""
        while self.updates_left and self.failure is None:
            selection = await self._next_batch()
            if self.failure is not None:
                break
            with self._stopwatch.during("Training"):
                metrics = await self._accumulate(selection)
            if metrics is None:
                continue
            # Stand-ins are of other weights than the engine's: their distance from its log-probs says nothing about the two programs.
            if self._spec.old_logits.strategy.exact and metrics.exact_coverage == 1.0:
                self._guard.batch(metrics)
            if self._scores_at_arrival:
                with self._stopwatch.during("Scoring"):
                    await self.score_unscored()
            with self._stopwatch.during("Scoring"):
                await self._scoring_keeps_up()
            self._pending = Pending(selection.batch, metrics, time.monotonic())
            self._changed.ring()
            with self._stopwatch.during("Sync"):
                while self._pending is not None and self.failure is None:
                    await self._changed.wait(self._changed.tick, LOOK_AGAIN_SECONDS)
        if self.failure is not None:
            raise self.failure

    async def _next_batch(self) -> Selection:
        algorithm, staleness = self._spec.algorithm, self._spec.staleness
        while self.failure is None:
            tick = self._changed.tick
            groups = await self._live_groups()
            selection = select_batch(
                groups, self._publication.version, algorithm.batch_groups, staleness.max_versions, staleness.action
            )
            if selection.stale:
                await self._ledger(Ledger.discard_groups, selection.stale, "stale", time.monotonic())
                continue
            self.batch_progress = 1.0 - selection.missing / algorithm.batch_groups
            if selection.batch:
                return selection
            if self._scores_at_arrival:
                with self._stopwatch.during("Scoring"):
                    scored = await self._score_some()
                if scored:
                    continue
            with self._stopwatch.during("Straggler" if selection.stragglers and not selection.missing else "Batch"):
                await self._changed.wait(tick, LOOK_AGAIN_SECONDS)
        return Selection((), (), (), 0)

    async def _live_groups(self) -> list[GroupState]:
        ready, unfinished = await self._ledger(Ledger.live_groups)
        live = [GroupState(g.group_id, True, g.oldest_version) for g in ready]
        for group in unfinished:
            known = [v for v in (group.recorded_version, group.granted_version) if v >= 0]
            live.append(GroupState(group.group_id, False, min(known, default=self._publication.version)))
        return live

    async def _accumulate(self, selection: Selection) -> UpdateMetrics | None:
        """The gradient; None when scoring took something out of the batch, so that another has to be chosen."""
        if self.timing is Timing.BY_WORKERS:
            with self._stopwatch.during("Scoring"):
                if not await self._scored_by_workers(selection.batch):
                    return None
        elif self.timing is not Timing.AT_STEP:
            async with self._trainer_lock:
                items = await self._ledger(Ledger.score_items, selection.batch)
                if items and not await self._score(items):
                    return None
        groups = await self._ledger(Ledger.load_groups, selection.batch)
        accumulated = await self._trainer(Trainer.accumulate, groups, self.update, self._publication.version)
        if accumulated.scores:
            await self._ledger(Ledger.record_scores, accumulated.scores, time.monotonic())
        return accumulated.metrics

    # --- scoring ----------------------------------------------------------------------------------------------------------
    async def score_unscored(self) -> None:
        """Score every recorded, unscored segment: of the resident version, and (Overlapped) of the frozen one before it."""
        while self.failure is None and await self._score_some():
            pass

    async def _score_some(self) -> bool:
        # Looked up under the lock: what is looked up before a step must be scored before it.
        async with self._trainer_lock:
            items = await self._ledger(Ledger.unscored, None, SCORE_CHUNK)
            if items:
                await self._score(items)
        return bool(items)

    async def _score_older(self) -> None:
        """Overlapped: what the frozen copy is still needed for, before the step takes its place. The caller holds the trainer's lock."""
        while True:
            items = await self._ledger(Ledger.unscored, None, SCORE_CHUNK)
            older = [item for item in items if item.version < self._publication.version]
            if not older or self.failure is not None:
                return
            await self._score(older)

    async def _score(self, items: list[ScoreItem]) -> bool:
        """One pass over `items`; each ends scored or discarded, or the job fails. True when all are scored. The caller holds the
        trainer's lock."""
        records = {version: await self._ledger(Ledger.version, version) for version in {i.version for i in items}}
        inside(SCORING, Moment.BEFORE)
        outcome = await self._trainer(Trainer.score, items, records)
        inside(SCORING, Moment.AFTER)
        taken = await self.take(outcome)
        if outcome.unavailable:
            return await self._without_exact(outcome.unavailable, outcome.why_unavailable) and taken
        return taken

    async def take(self, outcome: ScoreOutcome) -> bool:
        """Record scores, discard what was refused, fence who sent what was mislabelled. True when nothing was discarded."""
        if outcome.scores:
            await self._ledger(Ledger.record_scores, outcome.scores, time.monotonic())
        for reason, keys in outcome.discarded.items():
            log.warning("%d segments are discarded as %s: %s", len(keys), reason, outcome.why[reason])
            if reason == "mislabelled":
                for lease_id in {key.lease_id for key in keys}:
                    await self._fence_sender(lease_id)
            await self._ledger(Ledger.discard_segments, keys, reason, time.monotonic())
        mislabelled = len(outcome.discarded.get("mislabelled", ()))
        try:
            self._guard.scored(len(outcome.scores), mislabelled, outcome.why.get("mislabelled", ""))
        except GuardError as error:
            self.fail(error)
        return not outcome.discarded

    async def _without_exact(self, keys: list[SegmentKey], why: str) -> bool:
        """`oldLogits.onUnavailable` for segments whose exact values cannot be had. True when they have a score now. The caller holds
        the trainer's lock."""
        match self._spec.old_logits.on_unavailable:
            case OnUnavailable.FAIL:
                self.fail(OldLogitsError(why))
                return False
            case OnUnavailable.DISCARD:
                log.warning("%d segments are discarded as %s: %s", len(keys), UNAVAILABLE, why)
                await self._ledger(Ledger.discard_segments, keys, UNAVAILABLE, time.monotonic())
                return False
            case OnUnavailable.FALLBACK:
                log.warning("%d segments get the resident version's log-probs as old ones: %s", len(keys), why)
                items = await self._ledger(Ledger.items, keys)
                scores = await self._trainer(Trainer.stand_in, items)
                await self._ledger(Ledger.record_scores, scores, time.monotonic())
                return True

    async def _scored_by_workers(self, groups: tuple[int, ...]) -> bool:
        """Wait until old-logit workers have scored these groups. False when something was taken out of them meanwhile."""
        assert self.desk is not None  # timing BY_WORKERS has one
        while self.failure is None:
            tick = self._changed.tick
            ready = {group.group_id for group in await self._ledger(Ledger.ready_groups)}
            if not ready.issuperset(groups):
                return False
            unscored = await self._ledger(Ledger.unscored_keys, groups)
            if not unscored:
                return True
            why = self.desk.unavailable({segment.version for segment in unscored})
            lost = [segment.key for segment in unscored if segment.version in why]
            if lost:
                async with self._trainer_lock:
                    await self._without_exact(lost, "; ".join(sorted(set(why.values()))))
            else:
                await self._changed.wait(tick, LOOK_AGAIN_SECONDS)
        return False

    async def _scoring_keeps_up(self) -> None:
        """Back-pressure: no further version while the workers are behind."""
        while self.desk is not None and self.failure is None and self.desk.behind():
            await self._changed.wait(self._changed.tick, LOOK_AGAIN_SECONDS)

    async def _fence_sender(self, lease_id: int) -> None:
        sender = await self._ledger(Ledger.trajectory, lease_id)
        if sender is not None:
            await self._ledger(Ledger.fence, sender.member, "mislabelled", time.monotonic())

    # --- step and publication, asked for by the coordinator ------------------------------------------------------------------
    async def take_step(self, wait: float) -> bool:
        """The optimizer step of the pending gradient, once. False when there is none within `wait` seconds (a restart is still
        computing it). RefusedError 409 JobFailed when a guard refuses it."""
        deadline = time.monotonic() + wait
        while self._pending is None:
            left = deadline - time.monotonic()
            if left <= 0 or self.failure is not None:
                return False
            await self._changed.wait(self._changed.tick, min(left, LOOK_AGAIN_SECONDS))
        async with self._trainer_lock:
            pending = self._pending
            if pending is None or pending.stepped:
                return True
            if self._scores_at_arrival:
                await self._score_older()
            oldest = await self._ledger(Ledger.unscored, None, 1)
            try:
                outcome = await self._trainer(Trainer.step, self.update, {item.version for item in oldest})
            except LearnerError as error:
                raise self._failed(error) from error
            except Exception as error:
                # Whatever it was, the parameters may have moved: a second try would not be this step.
                log.exception("the step of update %d failed", self.update + 1)
                raise self._failed(LearnerError(f"the step of update {self.update + 1} failed: {error!r}")) from error
            pending.metrics = msgspec.structs.replace(
                pending.metrics, gradient_norm=outcome.gradient_norm, learning_rate=outcome.learning_rate
            )
            pending.stepped = True
            return True

    async def publish(self) -> None:
        """Weights, checkpoint, ledger row; then the update counts. Once per step."""
        async with self._trainer_lock:
            pending = self._pending
            if pending is None:
                return
            seconds = self._stopwatch.seconds()
            metrics = msgspec.structs.replace(
                pending.metrics,
                update=self.update + 1,
                at_seconds=time.monotonic() - self._started,
                seconds={name: value - self._seconds_before.get(name, 0.0) for name, value in seconds.items()},
            )
            try:
                record = await self._publication.publish_step(self.update + 1, pending.groups, metrics)
            except Exception as error:
                known = isinstance(error, LedgerError | WeightsError | OSError)
                log.error("version %d was not published: %s", metrics.version, error, exc_info=not known)
                raise self._failed(GuardError(f"version {metrics.version} was not published: {error}")) from error
            self._seconds_before = seconds
            if self.desk is not None:
                self.desk.announce(record.version)
            self.update += 1
            self._progress.add(metrics)
            self.on_update(metrics)
            self._pending = None
            self._note_down(metrics)
            log.info("update %d: version %d, reward %.3f", self.update, record.version, metrics.reward)
        self._changed.ring()

    def _note_down(self, metrics: UpdateMetrics) -> None:
        """One more line of metrics.jsonl. The ledger has it already, and the next start writes the file anew: no reason to stop."""
        try:
            with self._metrics_file.open("ab") as file:
                file.write(msgspec.json.encode(metrics) + b"\n")
        except OSError as error:
            log.warning("update %d is not in %s: %s; it is in the ledger", metrics.update, self._metrics_file, error)

    async def checkpoint_now(self) -> None:
        """A clean stop: a checkpoint of the resident version, unless a step has moved the parameters past it already."""
        async with self._trainer_lock:
            if self._pending is None or not self._pending.stepped:
                await self._publication.checkpoint_now(self.update)

    async def announced(self) -> None:
        """A sync is finished: what only older versions needed may go."""
        await self._publication.retire()
        self._changed.ring()

    def fail(self, error: LearnerError) -> None:
        """The job cannot go on; the first cause counts."""
        self.failure = self.failure or error
        self._changed.ring()

    def _failed(self, error: LearnerError) -> RefusedError:
        self.fail(error)
        return RefusedError(409, "JobFailed", str(error))
