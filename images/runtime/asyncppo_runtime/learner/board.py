"""What the learner says of itself: puts LearnerStatus together from ledger, training and members. Owns no figure but the phase."""

import time
from collections.abc import Mapping

from asyncppo.api.job import AsyncPPOJob
from asyncppo.report.measures import LearnerStatus, OldLogits, Throughput
from asyncppo_runtime.learner.experience import failure_figures
from asyncppo_runtime.learner.membership import Membership
from asyncppo_runtime.learner.progress import Progress, sync_figures
from asyncppo_runtime.learner.publication import Publication
from asyncppo_runtime.learner.scoring import UNAVAILABLE
from asyncppo_runtime.learner.stopwatch import Stopwatch
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.training import Training
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import VIOLATIONS
from asyncppo_runtime.old_logprobs.verify import Reason

CONTRADICTIONS = frozenset({reason.value for reason in (*VIOLATIONS, *Reason)})
"""Reasons that mean a label was wrong, whoever found it out: the ledger at receipt or the scorer."""


class Board:
    """`current` is the newest status (for scrapes, which must not wait); `refresh` makes a new one. progress: with what earlier lives of
    the program trained. notes: said with every status."""

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
        self._tokens_before = progress.tokens
        self._trajectories_before = progress.trajectories
        self._newest_epoch = 0
        self._sync_seconds: list[dict[str, float]] = []
        self._fenced = 0
        self.phase = "Running"
        self.message = ""
        self.notes: list[str] = []
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
        # Only what is new: a long job has many syncs, and this is asked for every second. Two refreshes at once ask for the same.
        for epoch in await self._ledger(Ledger.epochs, self._newest_epoch):
            if epoch.epoch > self._newest_epoch:
                self._newest_epoch = epoch.epoch
                self._sync_seconds.append(epoch.seconds)
                self._fenced += epoch.fenced
        spec, progress = self._job.spec, self._progress
        wall = (self._ended or time.monotonic()) - self._started
        done = self._training.update - self._first_update
        left = self._training.updates_left
        checkpoint = self._publication.last_checkpoint
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
                exact_coverage=exact_coverage(progress.exact_tokens, progress.tokens, totals.tokens.discarded),
                fallbacks=totals.tokens.fallback,
                audit=progress.audit,
                waiting=self._training.segments_waiting,
                unavailable=self._training.unavailable,
                violations=sum(totals.refused.get(why, 0) + totals.discarded.get(why, 0) for why in CONTRADICTIONS),
            ),
            staleness=progress.staleness(),
            discrepancy=progress.discrepancy(),
            ledger=totals,
            syncs=sync_figures(self._sync_seconds, self._fenced),
            throughput=Throughput(
                # Of this program's life, as the wall time is: what was trained before a restart took its own time.
                tokens_per_second=(progress.tokens - self._tokens_before) / wall if wall > 0 else 0.0,
                trajectories_per_second=(progress.trajectories - self._trajectories_before) / wall if wall > 0 else 0.0,
            ),
            members=await self._membership.views(),
            time=self._stopwatch.seconds(),
            failures=failure_figures(await self._ledger(Ledger.failures), spec.environment.fail_after),
            learning=progress.learning(),
            notes=list(self.notes),
        )
        return self.current


def exact_coverage(exact: int, trained: int, discarded: Mapping[str, int]) -> float:
    """Tokens trained with a verified old log-prob over all sampled loss tokens: those trained and those dropped because no exact value
    could be had. Dropping what could not be scored does not make a run exact. 0 before the first.

    discarded: tokens by reason; reasons that have nothing to do with scores (a lost lease, a full context) do not count here.
    """
    lost = sum(tokens for reason, tokens in discarded.items() if reason in CONTRADICTIONS or reason == UNAVAILABLE)
    return exact / (trained + lost) if trained + lost else 0.0
