"""From parameters in memory to a published policy version, and back after a restart. Owns version numbers and their order of writing:

weights file (renamed) → checkpoint files (renamed) → one ledger transaction that makes both count. A file without a row is
renamed at the next start, never deleted; a row not yet announced is announced again.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.report.measures import UpdateMetrics
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.learner.checkpoints import (
    Checkpoint,
    read_checkpoint,
    remove_checkpoint,
    tidy_checkpoints,
    write_checkpoint,
)
from asyncppo_runtime.learner.errors import CheckpointError
from asyncppo_runtime.learner.layout import checkpoint_path
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import CheckpointRow, VersionRow
from asyncppo_runtime.weights.store import WeightStore

log = logging.getLogger(__name__)

NO_METRICS = b""
PRUNED_AT_ONCE = 256


class Publication:
    """Publishes versions and keeps the checkpoints the manifest asks for.

    version, lineage: of the resident parameters, which are always those of the newest published version or, between a step and its
    publication, one step past it. notes: what people should know of how `begin` went.
    """

    def __init__(
        self,
        spec: AsyncPPOJobSpec,
        fingerprint: str,
        ledger: OwnThread[Ledger],
        trainer: OwnThread[Trainer],
        store: WeightStore,
        checkpoints: Path,
    ) -> None:
        self._spec = spec
        self._fingerprint = fingerprint
        self._ledger = ledger
        self._trainer = trainer
        self._store = store
        self._checkpoints = checkpoints
        self.version = -1
        self.lineage = 0
        self.last_checkpoint = -1
        self.notes: list[str] = []

    async def begin(self) -> int:
        """Publish version 0, or restore the newest checkpoint. Returns the optimizer steps taken so far. CheckpointError when the
        checkpoint is damaged or of another job: nothing in the folder is changed then."""
        rows = await self._ledger(Ledger.versions)
        kept = [row for row in await self._ledger(Ledger.checkpoints) if not row.abandoned]
        if not rows:
            await self._tidy(rows, kept)
            await self._publish(0, -1, "initial", 0, (), NO_METRICS, checkpoint=True)
            return 0
        newest, gone = self._newest(kept)
        checkpoint = read_checkpoint(checkpoint_path(self._checkpoints, newest.version))
        self._check(checkpoint, next(row.record for row in rows if row.record.version == newest.version))
        await self._tidy(rows, kept)
        await self._trainer(
            Trainer.adopt, {row.record.version: row.record.train_hash for row in rows if not row.abandoned}
        )
        await self._trainer(Trainer.restore, checkpoint)
        restored = await self._ledger(Ledger.restore, newest.version, time.monotonic())
        # What came back with the checkpoint and is needed no more would stand in the way of the resident version.
        await self._trainer(Trainer.retire, await self._ledger(Ledger.needed_versions))
        await self._trainer(Trainer.published, newest.version)
        self.version, self.lineage, self.last_checkpoint = newest.version, restored.lineage, newest.version
        if gone:
            self.notes.append(_passed_over(gone, checkpoint, rows))
        if restored.republish:
            log.warning(
                "versions after checkpoint %d are left behind: lineage %d begins at version %d; %d trajectories wait again",
                newest.version,
                restored.lineage,
                restored.next_version,
                restored.undone,
            )
            await self._publish(
                restored.next_version,
                newest.version,
                "restore",
                checkpoint.state.update,
                (),
                NO_METRICS,
                checkpoint=True,
            )
        return checkpoint.state.update

    async def _tidy(self, rows: Sequence[VersionRow], kept: Sequence[CheckpointRow]) -> None:
        """What a crash left without a row is set aside: it was never published, and a version of its number comes next."""
        aside = self._store.reconcile([row.record.version for row in rows]).aside
        dropped = await self._ledger(Ledger.dropped_checkpoints)
        aside += [path.name for path in tidy_checkpoints(self._checkpoints, {row.version for row in kept}, dropped)]
        if aside:
            self.notes.append(
                "not in the ledger, so set aside under another name (remove it when you need the room): "
                + ", ".join(aside)
            )

    def _newest(self, kept: Sequence[CheckpointRow]) -> tuple[CheckpointRow, list[int]]:
        """The newest checkpoint whose folder is there, and the versions of those passed over: somebody removed them. A damaged one is not
        passed over."""
        gone: list[int] = []
        for row in reversed(kept):
            if checkpoint_path(self._checkpoints, row.version).is_dir():
                return row, gone
            gone.append(row.version)
        raise CheckpointError(
            f"none of the checkpoints in the ledger is left in {self._checkpoints}; put one back, or start a new run in another folder"
        )

    async def publish_step(self, update: int, groups: tuple[int, ...], metrics: UpdateMetrics) -> VersionRecord:
        """The version that optimizer step `update` made from `groups`."""
        due = update % self._spec.checkpoint.every_updates == 0 or update == self._spec.algorithm.updates
        return await self._publish(
            self.version + 1, self.version, "step", update, groups, msgspec.json.encode(metrics), checkpoint=due
        )

    async def checkpoint_now(self, update: int) -> None:
        """A checkpoint of the resident version, unless it has one (a clean stop)."""
        if self.last_checkpoint != self.version:
            await self._write_checkpoint(self.version, update)
            await self._ledger(Ledger.commit_checkpoint, self.version, self._relative(self.version), time.monotonic())
            self.last_checkpoint = self.version

    async def retire(self) -> None:
        """Delete weights and checkpoints that nothing needs any more."""
        rows = [row for row in await self._ledger(Ledger.checkpoints) if not row.abandoned]
        for row in rows[: -self._spec.checkpoint.keep]:
            await self._ledger(Ledger.drop_checkpoint, row.version, time.monotonic())
        for row in rows[: -self._spec.checkpoint.keep]:
            await asyncio.to_thread(remove_checkpoint, self._checkpoints, row.version)
        needed = await self._ledger(Ledger.needed_versions)
        await asyncio.to_thread(self._store.retain, needed | {self.version, self.version + 1})  # one may be under way
        await self._trainer(Trainer.retire, needed)
        pruned = PRUNED_AT_ONCE
        while (
            pruned == PRUNED_AT_ONCE
        ):  # a batch may be larger than one call's share; the calls let others at the ledger in between
            pruned = await self._ledger(Ledger.prune, time.monotonic(), limit=PRUNED_AT_ONCE)

    async def _publish(
        self,
        version: int,
        parent: int,
        reason: str,
        update: int,
        groups: tuple[int, ...],
        metrics: bytes,
        *,
        checkpoint: bool,
    ) -> VersionRecord:
        exported = await self._trainer(Trainer.export_version)
        stored = await asyncio.to_thread(self._store.publish, version, exported.published)
        record = VersionRecord(
            version=version,
            parent=parent,
            lineage=self.lineage,
            train_hash=exported.train_hash,
            published_hash=exported.published_hash,
            file_size=stored.size,
            file_sha256=stored.sha256,
            reason=reason,
        )
        if checkpoint:
            await self._write_checkpoint(version, update)
        # Before the row: from the moment it frees the batch's groups, samplers of the version before must count as one behind.
        self.version = version
        await self._ledger(
            Ledger.publish,
            record,
            exported.canary,
            groups,
            (),
            metrics,
            time.monotonic(),
            checkpoint=self._relative(version) if checkpoint else "",
        )
        if checkpoint:
            self.last_checkpoint = version
        await self._trainer(Trainer.retire, await self._ledger(Ledger.needed_versions))
        await self._trainer(Trainer.published, version)
        return record

    async def _write_checkpoint(self, version: int, update: int) -> None:
        checkpoint = await self._trainer(Trainer.checkpoint, version, update, self._fingerprint)
        await asyncio.to_thread(write_checkpoint, self._checkpoints, checkpoint)

    def _relative(self, version: int) -> str:
        return f"checkpoints/{checkpoint_path(self._checkpoints, version).name}"

    def _check(self, checkpoint: Checkpoint, record: VersionRecord) -> None:
        where = checkpoint_path(self._checkpoints, checkpoint.state.version)
        if checkpoint.state.fingerprint != self._fingerprint:
            raise CheckpointError(
                f"checkpoint {where} was made by another manifest (model, environment, algorithm or seed differ); "
                "resume with that manifest, or start a new run in another folder"
            )
        if checkpoint.state.train_hash != record.train_hash:
            raise CheckpointError(f"checkpoint {where} does not hold the weights of version {record.version}")


def _passed_over(gone: Sequence[int], checkpoint: Checkpoint, rows: Sequence[VersionRow]) -> str:
    """That newer checkpoints are missing, and what going on from this one costs."""
    were = f"checkpoint {gone[0]} is" if len(gone) == 1 else f"checkpoints {', '.join(map(str, sorted(gone)))} are"
    version, update = checkpoint.state.version, checkpoint.state.update
    lineage = [row for row in rows if not row.abandoned]
    updates = [msgspec.json.decode(row.metrics, type=UpdateMetrics).update for row in lineage if row.metrics]
    undone = max(updates, default=update) - update
    newest = max(row.record.version for row in lineage)
    return (
        f"{were} not there any more, so the run went back from version {newest} to checkpoint {version}: "
        f"{undone} update{'' if undone == 1 else 's'} undone, to be taken again from update {update}"
    )
