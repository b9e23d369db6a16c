"""One cell of a study, from version 0 to the last: sample by the schedule, score by the strategy, step, publish.

Owns the order of things under each version and what is timed. Does not own the schedule, the engine, the exact values nor the trainer.

Order under version v: sampling; scores of the batch; (Barrier) scores of all else; gradient; step; publish v + 1; load; (Overlapped)
the rest of v's scores from the frozen copy.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from asyncppo.api.correction import Scoring, Strategy
from asyncppo.api.job import AsyncPPOJob
from asyncppo.report.measures import UpdateMetrics
from asyncppo.study.results import CellResult, Cost, Errors, late_reward
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.algorithm.audit import AuditSums
from asyncppo_runtime.environments.registry import environment_factory
from asyncppo_runtime.learner.progress import Progress
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import Score, ScoreItem
from asyncppo_runtime.old_logprobs.interface import Timing
from asyncppo_runtime.policy import build_tokenizer
from asyncppo_runtime.rollout.agent import Agent, AgentSettings
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.study.engine import LockstepEngine
from asyncppo_runtime.study.exact import ExactScorer
from asyncppo_runtime.study.harvest import Growing, forward_tokens, unscored
from asyncppo_runtime.study.schedule import beginning
from asyncppo_runtime.weights.store import WeightStore

MODE = "virtual"


@dataclass
class Spent:
    """CPU seconds of this process by activity: nothing here waits, and a busy machine does not stretch them."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, activity: str) -> Iterator[None]:
        """Count the block."""
        began = time.process_time()
        try:
            yield
        finally:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + time.process_time() - began

    def of(self, *activities: str) -> float:
        """Their sum."""
        return sum(self.seconds.get(activity, 0.0) for activity in activities)


class CellRun:
    """Trains one job. directory: for weights on their way and the strategy's own files; the caller removes it.

    ended: when each update did (`time.perf_counter`).
    """

    def __init__(self, job: AsyncPPOJob, directory: Path) -> None:
        self._job, self._spec, self._directory = job, job.spec, directory
        self._trainer = Trainer(job.spec, directory / "strategy")
        self._exact = ExactScorer(job.spec, self._trainer)
        self._store = WeightStore(directory / "published")
        self._engine = LockstepEngine(job.spec)
        self._gate = Gate()
        self._gate.open()
        self._agent = Agent(
            AgentSettings.of(job.spec),
            self._engine,  # type: ignore[arg-type]  # the agent loop asks of it only what it has
            build_tokenizer(job.spec),
            environment_factory(job.spec.environment),
            self._gate,
            Tally(),
        )
        self._growing: dict[int, Growing] = {}
        self._records: dict[int, VersionRecord] = {}
        self._timing = self._trainer.strategy.traits.timing
        self._spent, self._audit = Spent(), AuditSums()
        self._forward_tokens = self._trained_tokens = self._bytes = 0
        self._metrics: list[UpdateMetrics] = []
        self.ended: list[float] = []

    async def train(self, updates: int) -> CellResult:
        """`updates` updates, at most the manifest's. Raises UserError, GuardError and what else the programs raise."""
        async with asyncio.TaskGroup() as episodes:
            self._publish(0)
            for version in range(updates):
                with self._spent.on("sampling"):
                    await self._sample(version, episodes)
                self._update(version)
                self.ended.append(time.perf_counter())
            for each in self._growing.values():
                if each.task is not None:
                    each.episode.dropped = True
                    each.task.cancel()
        return self._result(updates)

    async def _sample(self, version: int, episodes: asyncio.TaskGroup) -> None:
        for course in beginning(self._spec, version):
            growing = Growing(course, Episode(course.lease))
            self._growing[course.lease.lease_id] = growing
        alive = [each for each in self._growing.values() if not each.episode.finished]
        self._engine.allow({each.episode.session: each.course.allowance(version) for each in alive})
        for each in alive:
            if each.course.start == version:
                each.task = episodes.create_task(self._agent.play(each.episode))
        await self._engine.play()

    def _update(self, version: int) -> None:
        """The step that makes version + 1."""
        trainer, overlapped = self._trainer, self._spec.old_logits.scoring is Scoring.OVERLAPPED
        batch = [each for each in self._growing.values() if each.course.update == version]
        late = [each.course.lease.lease_id for each in batch if not each.episode.finished]
        if late:
            raise RuntimeError(
                f"trajectories {late} are not finished under their last version: a mistake of the schedule"
            )
        with self._spent.on("workers" if self._timing is Timing.BY_WORKERS else "scoring"):
            self._score(unscored(batch))
        if self._timing is Timing.BEFORE_SEAL and not overlapped:
            with self._spent.on("barrier"):
                self._score(unscored(self._growing.values()))
        groups = [[each.stored() for each in batch if each.course.lease.group_id == g] for g in _groups(batch)]
        exact = self._exact.score([item for each in batch for item in each.items(scored=True)], self._records)
        with self._spent.on("training"):
            accumulated = trainer.accumulate(groups, version, version)
        self._audit = self._audit + self._exact.compare(trainer, groups, exact, version)
        if self._spec.old_logits.strategy is Strategy.EWMA:
            self._forward_tokens += sum(len(each.episode.token_ids) for each in batch)
        self._trained_tokens += sum(len(each.episode.token_ids) for each in batch)
        self._metrics.append(accumulated.metrics)
        for each in batch:
            del self._growing[each.course.lease.lease_id]
        left = {item.version for item in unscored(self._growing.values())}
        with self._spent.on("step"):
            trainer.step(version, left)
        self._publish(version + 1)
        if self._timing is Timing.BEFORE_SEAL and overlapped:
            with self._spent.on("scoring"):
                self._score(unscored(self._growing.values()))

    def _score(self, items: list[ScoreItem]) -> None:
        if not items or self._timing is Timing.AT_STEP:
            return
        self._forward_tokens += forward_tokens(items)
        if self._timing is Timing.BY_WORKERS:
            self._keep(self._exact.score(items, self._records))
            return
        outcome = self._trainer.score(items, dict(self._records))
        if outcome.unavailable:
            raise RuntimeError(f"an exact old log-prob cannot be had: {outcome.why_unavailable}")
        self._keep(outcome.scores)
        for reason, keys in outcome.discarded.items():
            for key in keys:
                self._growing[key.lease_id].discarded[key] = reason

    def _keep(self, scores: list[Score]) -> None:
        for score in scores:
            self._growing[score.key.lease_id].scores[score.key] = score

    def _publish(self, version: int) -> None:
        """Publish the resident parameters as `version`, and have the engine load them."""
        trainer = self._trainer
        with self._spent.on("publish"):
            exported = trainer.export_version()
            stored = self._store.publish(version, exported.published)
        record = VersionRecord(
            version=version,
            parent=version - 1,
            lineage=0,
            train_hash=exported.train_hash,
            published_hash=exported.published_hash,
            file_size=stored.size,
            file_sha256=stored.sha256,
        )
        self._records[version] = record
        alive = self._growing.values()
        sampled_by = {segment.version for each in alive for segment in each.episode.segments}
        self._exact.retire(sampled_by | {version - 1})
        trainer.retire({item.version for item in unscored(alive)} | {version - 1})
        with self._spent.on("publish"):
            trainer.published(version)
        self._exact.published(record, trainer)
        with self._spent.on("load"):
            self._engine.load(stored.path, record)
        self._store.retain({version})
        self._bytes = max(self._bytes, self._held())

    def _held(self) -> int:
        """Bytes of weights the strategy keeps, in memory and on disk. Dedicated: the store's and the worker's."""
        if self._timing is Timing.BY_WORKERS:
            return self._exact.bytes_held
        files = (self._directory / "strategy").glob("*.safetensors")
        return self._trainer.strategy.bytes_held + sum(file.stat().st_size for file in files)

    def _result(self, updates: int) -> CellResult:
        progress, spent, sums = Progress(updates), self._spent, self._audit
        for number, metrics in enumerate(self._metrics):
            progress.add(_numbered(metrics, number + 1))
        rewards = [metrics.reward for metrics in self._metrics]
        discrepancy, tokens = progress.discrepancy(), max(1, sums.tokens)
        learner = spent.of("scoring", "barrier", "training", "step", "publish")
        barrier = self._timing is Timing.BEFORE_SEAL and self._spec.old_logits.scoring is Scoring.BARRIER
        return CellResult(
            strategy="",
            exact=self._trainer.strategy.traits.exact,
            seed=self._spec.seed,
            mode=MODE,
            fingerprint="",
            updates=updates,
            rewards=rewards,
            reward=late_reward(rewards),
            tokens=progress.tokens,
            staleness=progress.staleness().mean,
            coverage=progress.exact_tokens / max(1, progress.tokens),
            k3=discrepancy.k3,
            slope=discrepancy.slope,
            mask_fraction=sum(m.mask_fraction for m in self._metrics) / len(self._metrics),
            clip_fraction=sum(m.clip_fraction for m in self._metrics) / len(self._metrics),
            errors=Errors(
                false_mask=sums.false_mask / tokens,
                missed_mask=sums.missed_mask / tokens,
                false_clip=sums.false_clip / tokens,
                missed_clip=sums.missed_clip / tokens,
                anchor=sums.absolute_error / tokens,
            ),
            cost=Cost(
                wall=learner + spent.of("sampling", "load", "workers"),
                learner=learner,
                stall=spent.of("load", *(("barrier", "step", "publish") if barrier else ())),
                extra_forwards=self._forward_tokens / max(1, self._trained_tokens),
                bytes_held=self._bytes,
            ),
        )


def _groups(batch: list[Growing]) -> list[int]:
    return sorted({each.course.lease.group_id for each in batch})


def _numbered(metrics: UpdateMetrics, number: int) -> UpdateMetrics:
    return msgspec.structs.replace(metrics, update=number)
