"""The learner program put together: opens the ledger, restores, serves, trains, parks. Owns the life of its parts."""

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from asyncppo.api.correction import OnUnavailable
from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import job_fingerprint
from asyncppo.api.training import Overlong
from asyncppo.metrics.learner_collector import LearnerCollector
from asyncppo.report.measures import UpdateMetrics
from asyncppo.report.remarks import unlearnt
from asyncppo.sync.columns import column_of
from asyncppo.wire.server import serve
from asyncppo_runtime.learner.board import Board
from asyncppo_runtime.learner.errors import LearnerError
from asyncppo_runtime.learner.experience import Experience
from asyncppo_runtime.learner.layout import CHECKPOINTS, LEDGER, METRICS, MODEL, SNAPSHOTS, WEIGHTS
from asyncppo_runtime.learner.membership import Membership
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.progress import Progress
from asyncppo_runtime.learner.publication import Publication
from asyncppo_runtime.learner.resumption import refuse_unknown
from asyncppo_runtime.learner.schedule import jump
from asyncppo_runtime.learner.scoring_desk import ScoringDesk
from asyncppo_runtime.learner.service import learner_application
from asyncppo_runtime.learner.stopwatch import Stopwatch
from asyncppo_runtime.learner.synchronization import Synchronization
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.learner.training import Training
from asyncppo_runtime.ledger.errors import LedgerError, LedgerStorageError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LedgerSettings, Limits
from asyncppo_runtime.ledger.review import Poison
from asyncppo_runtime.old_logprobs.interface import Timing
from asyncppo_runtime.old_logprobs.registry import STRATEGIES
from asyncppo_runtime.weights.serve import weights_handler
from asyncppo_runtime.weights.store import WeightStore

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 1.0
FAREWELL_SECONDS = 10.0


@dataclass(frozen=True)
class Arguments:
    """What the program is started with."""

    job: AsyncPPOJob
    directory: Path
    host: str
    port: int
    token: str
    metrics: tuple[str, int] | None = None


class LearnerProgram:
    """One run of the learner. `run` returns when told to stop; the outcome stays readable on /v1/status until then."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._stop = asyncio.Event()
        self._finished = False
        self._failed = ""

    def stop(self) -> None:
        """End: checkpoint, close, return."""
        self._stop.set()

    async def run(self) -> bool:
        """Train, then park until `stop`. True unless the job failed. Raises UserError, CheckpointError, LedgerUnusableError, OSError
        before anything is served."""
        arguments, job = self._arguments, self._arguments.job
        directory = arguments.directory
        directory.mkdir(parents=True, exist_ok=True)
        adopt = job.spec.learner.adopt_storage
        refuse_unknown(directory, job.metadata.uid, adopt=adopt)
        fingerprint = job_fingerprint(job.spec)
        settings = LedgerSettings(
            job_uid=job.metadata.uid,
            fingerprint=fingerprint,
            group_size=job.spec.algorithm.group_size,
            seed=job.spec.seed,
            seal_rule=column_of(job.spec.old_logits.strategy, job.spec.old_logits.scoring).rule,
            exact=job.spec.old_logits.strategy.exact,
            discard_overlong=job.spec.sampling.overlong is Overlong.DISCARD,
            fallback=job.spec.old_logits.on_unavailable is OnUnavailable.FALLBACK,
        )
        ledger = OwnThread("ledger", lambda: Ledger.open(directory / LEDGER, settings, time.monotonic(), adopt=adopt))
        try:
            trainer = OwnThread("trainer", lambda: Trainer(job.spec, directory / SNAPSHOTS, directory / WEIGHTS))
            try:
                return await self._serve(fingerprint, ledger, trainer)
            finally:
                trainer.close()
        finally:
            ledger.close(Ledger.close)

    async def _serve(self, fingerprint: str, ledger: OwnThread[Ledger], trainer: OwnThread[Trainer]) -> bool:
        arguments, job = self._arguments, self._arguments.job
        directory, spec = arguments.directory, job.spec
        changed, stopwatch, progress = Notice(), Stopwatch(), Progress(spec.algorithm.updates)
        store = WeightStore(directory / WEIGHTS)
        publication = Publication(spec, fingerprint, ledger, trainer, store, directory / CHECKPOINTS)
        update = await publication.begin()
        limits = Limits(spec.reward.bound, spec.sampling.context_length, await trainer(Trainer.vocabulary))
        poison = await ledger(Ledger.impose, limits, spec.environment.fail_after, time.monotonic())
        metrics_file = directory / METRICS
        history = await _history(ledger)
        metrics_file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in history))
        training = Training(
            spec,
            ledger,
            trainer,
            publication,
            progress,
            stopwatch,
            changed,
            metrics_file,
            update,
            timing=STRATEGIES[spec.old_logits.strategy].traits.timing,
        )
        synchronization = Synchronization(
            column_of(spec.old_logits.strategy, spec.old_logits.scoring),
            ledger,
            training,
            changed,
            lambda: (self._finished, self._failed),
        )
        membership = Membership(
            ledger,
            changed,
            lambda: self._finished,
            synchronization.close_abandoned,
            spec.weight_sync.pause_timeout_seconds,
        )
        if training.timing is Timing.BY_WORKERS:
            kept = WeightStore(directory / SNAPSHOTS)
            training.desk = ScoringDesk(spec, ledger, kept, changed, training.take, lambda: self._finished)
        for line in history:
            progress.add(line)
        board = Board(job, ledger, training, publication, membership, progress, stopwatch)
        board.notes = _notes(publication.notes, poison, jump(spec.optimizer, progress.last, spec.algorithm.updates))
        collector = LearnerCollector(lambda: board.current)
        for line in history:
            collector.record(line)
        training.on_update = collector.record
        registry = CollectorRegistry()
        registry.register(collector)
        app = learner_application(
            token=arguments.token,
            job_uid=job.metadata.uid,
            registry=registry,
            ready=lambda: "",
            experience=Experience(
                spec,
                ledger,
                changed,
                lambda: publication.version,
                lambda: training.updates_left,
                lambda: training.wanted_since,
                lambda: self._finished,
                lambda: training.desk is not None and bool(training.desk.behind()),
                training.fail,
            ),
            desk=training.desk,
            membership=membership,
            synchronization=synchronization,
            weights=weights_handler(store, lambda version: ledger(Ledger.version, version)),
            status=board.refresh,
            stop=self.stop,
            storage_failed=lambda error: training.fail(LearnerError(str(error))),
            context_length=spec.sampling.context_length,
        )
        await board.refresh()
        runner, port = await serve(app, arguments.host, arguments.port, arguments.metrics)
        _announce(directory / "learner.url", f"http://{arguments.host}:{port}")
        log.info("serving on %s:%d, version %d, update %d", arguments.host, port, publication.version, update)
        try:
            async with asyncio.TaskGroup() as tasks:
                housekeeping = tasks.create_task(self._keep_house(ledger, training, board, changed))
                work = tasks.create_task(self._train(training, publication, board, ledger, trainer, changed))
                await self._stop.wait()
                work.cancel()
                housekeeping.cancel()
        finally:
            await runner.cleanup()
        if not self._finished:
            await training.checkpoint_now()
            log.info("stopped at update %d; checkpoint %d", training.update, publication.last_checkpoint)
        return not self._failed

    async def _train(
        self,
        training: Training,
        publication: Publication,
        board: Board,
        ledger: OwnThread[Ledger],
        trainer: OwnThread[Trainer],
        changed: Notice,
    ) -> None:
        try:
            await training.run()
            await _until_announced(ledger, training, changed)
            await self._say_goodbye(ledger, changed)
            model_folder = self._arguments.directory / MODEL
            await trainer(Trainer.export_model, model_folder)
            await board.refresh()
            nothing = unlearnt(board.current.learning)
            board.end("Complete", f"trained {training.update} updates" + (f"; {nothing}" if nothing else ""))
        except Exception as error:
            known = isinstance(error, LearnerError | LedgerError | OSError)
            log.error("the job failed: %s", error, exc_info=not known)
            good = publication.last_checkpoint
            self._failed = f"{error}. Last good checkpoint: {good if good >= 0 else 'none'}"
            board.end("Failed", self._failed)
        self._finished = True
        await board.refresh()
        changed.ring()

    async def _say_goodbye(self, ledger: OwnThread[Ledger], changed: Notice) -> None:
        """Rollouts are told by their heartbeats that the job is over; wait a moment for their leases to come back."""
        self._finished = True
        deadline = time.monotonic() + FAREWELL_SECONDS
        while time.monotonic() < deadline and (await ledger(Ledger.totals)).in_flight:
            await changed.wait(changed.tick, 0.2)

    async def _keep_house(self, ledger: OwnThread[Ledger], training: Training, board: Board, changed: Notice) -> None:
        while True:
            try:
                if await ledger(Ledger.expire, time.monotonic()):
                    changed.ring()
                await ledger(Ledger.forget, time.monotonic())
            except LedgerStorageError as error:
                training.fail(LearnerError(str(error)))
            await board.refresh()
            await asyncio.sleep(HOUSEKEEPING_SECONDS)


async def _until_announced(ledger: OwnThread[Ledger], training: Training, changed: Notice) -> None:
    """Wait for the last version's sync; a failure of it is the job's."""
    while (await ledger(Ledger.view)).unannounced and training.failure is None:
        await changed.wait(changed.tick, 0.5)
    if training.failure is not None:
        raise training.failure


def _notes(restoring: list[str], poison: list[Poison], schedule: str) -> list[str]:
    """What people should know of this start; in the log too."""
    notes = list(restoring)
    if poison:
        first = poison[0]
        several, were = (f"{len(poison)} trajectories", "were") if len(poison) > 1 else ("1 trajectory", "was")
        notes.append(
            f"{several} of the ledger could not have been trained on and {were} discarded at this start; the first, "
            f"{first.lease_id}, as {first.reason}: {first.detail}"
        )
    if schedule:
        notes.append(schedule)
    for note in notes:
        log.warning("%s", note)
    return notes


async def _history(ledger: OwnThread[Ledger]) -> list[UpdateMetrics]:
    rows = await ledger(Ledger.versions)
    return [msgspec.json.decode(row.metrics, type=UpdateMetrics) for row in rows if row.metrics and not row.abandoned]


def _announce(path: Path, url: str) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(url + "\n")
    os.replace(draft, path)
