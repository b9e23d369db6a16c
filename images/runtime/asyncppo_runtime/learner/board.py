"""What the learner says of itself: puts LearnerStatus together from ledger, training and members. Owns no figure but the phase."""

import time

from asyncppo.api.job import AsyncPPOJob
from asyncppo.report.measures import LearnerStatus, OldLogits, Throughput
from asyncppo_runtime.learner.membership import Membership
from asyncppo_runtime.learner.progress import Progress, sync_figures
from asyncppo_runtime.learner.publication import Publication
from asyncppo_runtime.learner.stopwatch import Stopwatch
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.training import Training
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import VIOLATIONS


class Board:
    """`current` is the newest status (for scrapes, which must not wait); `refresh` makes a new one."""

    def __init__(
        self,
        job: AsyncPPOJob,
        ledger: OwnThread[Ledger],
        training: Training,
        publication: Publication,
        membership: Membership,
        progress: Progress,
        stopwatch: Stopwatch,
    ) -> None:
        self._job = job
        self._ledger = ledger
        self._training = training
        self._publication = publication
        self._membership = membership
        self._progress = progress
        self._stopwatch = stopwatch
        self._started = time.monotonic()
        self._ended: float | None = None
        self._first_update = training.update
        self.phase = "Running"
        self.message = ""
        strategy = job.spec.old_logits.strategy
        self.current = LearnerStatus(
            job=job.metadata.name,
            phase="Starting",
            old_logits=OldLogits(strategy=strategy.value, exact=strategy.exact),
        )

    def end(self, phase: str, message: str) -> None:
        """The job is over: the clock stops."""
        self.phase, self.message = phase, message
        self._ended = time.monotonic()

    async def refresh(self) -> LearnerStatus:
        """Look at everything and say it."""
        totals = await self._ledger(Ledger.totals)
        view = await self._ledger(Ledger.view)
        epochs = await self._ledger(Ledger.epochs)
        spec, progress = self._job.spec, self._progress
        wall = (self._ended or time.monotonic()) - self._started
        done = self._training.update - self._first_update
        left = self._training.updates_left
        checkpoint = self._publication.last_checkpoint
        violations = {**totals.refused, **totals.discarded, **totals.tokens.discarded}
        self.current = LearnerStatus(
            job=self._job.metadata.name,
            phase=self.phase,
            message=self.message,
            update=self._training.update,
            updates=spec.algorithm.updates,
            version=self._publication.version,
            versions=self._publication.version + 1,
            lineage=view.lineage,
            epoch=view.epoch,
            wall_seconds=wall,
            eta_seconds=wall / done * left if done else None,
            waiting_for=self._stopwatch.activity if self._ended is None else "Nothing",
            batch_progress=self._training.batch_progress,
            last_reward=progress.last.reward if progress.last else 0.0,
            last_good_checkpoint=f"checkpoints/{checkpoint:08d}" if checkpoint >= 0 else "",
            reward=progress.reward(),
            old_logits=OldLogits(
                strategy=spec.old_logits.strategy.value,
                exact=spec.old_logits.strategy.exact,
                exact_coverage=progress.exact_coverage,
                violations=sum(violations.get(reason, 0) for reason in VIOLATIONS),
            ),
            staleness=progress.staleness(),
            discrepancy=progress.discrepancy(),
            ledger=totals,
            syncs=sync_figures([epoch.seconds for epoch in epochs], sum(epoch.fenced for epoch in epochs)),
            throughput=Throughput(
                tokens_per_second=progress.tokens / wall if wall > 0 else 0.0,
                trajectories_per_second=progress.trajectories / wall if wall > 0 else 0.0,
            ),
            members=await self._membership.views(),
            time=self._stopwatch.seconds(),
        )
        return self.current
