"""The learner's program as its callers see it: what a rollout that only fails brings it to, and a ledger from before this door."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import json, structs
from tests.unit.api.builders import document

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import parse_manifest
from asyncppo.local.feed import fetch_status
from asyncppo.report.measures import LearnerStatus, UpdateMetrics
from asyncppo.sync.member import MemberGuard
from asyncppo.wire.client import WireClient
from asyncppo.wire.experience import Lease, Segment, Trajectory
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.learner.program import Arguments, LearnerProgram
from asyncppo_runtime.ledger.errors import LedgerUnusableError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.reader import LedgerReader
from asyncppo_runtime.rollout.link import LearnerLink
from asyncppo_runtime.rollout.standing import Standing
from asyncppo_runtime.weights.files import file_name

TOKEN = "t"
SPEC = {
    "model": {"builtin": {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 16}},
    "algorithm.updates": 3,
    "algorithm.groupSize": 2,
    "algorithm.batchGroups": 2,
    "environment.failAfter": 8,
    "oldLogits.strategy": "Recompute",
    "sampling.contextLength": 32,
}


class Rollout:
    """As much of a rollout as it takes to lease and to answer."""

    def __init__(self, client: WireClient, learner: str, job: AsyncPPOJob) -> None:
        self.client, self.learner = client, learner
        self.standing = Standing(MemberGuard(job_uid=job.metadata.uid, name="rollout-0"))
        self.link = LearnerLink(client, learner, self.standing)

    async def join(self) -> VersionRecord:
        joined = await self.link.join(self.learner)  # where somebody answers /healthz
        assert joined.record is not None
        self.standing.guard = self.standing.guard.joined(joined)
        await self.link.ready(joined.record.version, joined.record.published_hash)
        return joined.record

    async def status(self) -> LearnerStatus:
        return await fetch_status(self.client, self.learner)


@asynccontextmanager
async def serving(job: AsyncPPOJob, folder: Path) -> AsyncIterator[Rollout]:
    """A learner of `job` in this process, and a rollout that may call it."""
    (folder / "learner.url").unlink(missing_ok=True)
    program = LearnerProgram(Arguments(job, folder, "127.0.0.1", 0, TOKEN))
    running = asyncio.create_task(program.run())
    try:
        deadline = time.monotonic() + 60
        while not (folder / "learner.url").exists():
            assert time.monotonic() < deadline
            assert not running.done(), running.exception()
            await asyncio.sleep(0.02)
        url = (folder / "learner.url").read_text().strip()
        async with WireClient(TOKEN) as client:
            yield Rollout(client, url, job)
    finally:
        program.stop()
        await running


@pytest.fixture
def job() -> AsyncPPOJob:
    made = parse_manifest(document(SPEC), "test")
    return made.model_copy(update={"metadata": made.metadata.model_copy(update={"uid": "uid-1"})})


def changed(job: AsyncPPOJob, uid: str, **learner: object) -> AsyncPPOJob:
    """The same specification as another object of the cluster, with these fields of `learner`."""
    spec = job.spec.model_copy(update={"learner": job.spec.learner.model_copy(update=learner)})
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": uid}), "spec": spec})


def played(lease: Lease, record: VersionRecord, **changes: object) -> Trajectory:
    """Two sampled tokens after one of the environment's."""
    good = Trajectory(
        lease_id=lease.lease_id,
        group_id=lease.group_id,
        token_ids=[1, 2, 1],
        segments=[Segment(0, 1, 3, record.version, record.published_hash, [-1.0, -1.0])],
        finished=True,
        reward=1.0,
        end_reason="done",
    )
    return structs.replace(good, **changes)


async def test_a_rollout_that_only_fails_ends_the_job_with_its_own_words(job: AsyncPPOJob, tmp_path: Path) -> None:
    error = "FileNotFoundError: \x1b[31m/data/questions.jsonl"
    async with serving(job, tmp_path) as rollout:
        record = await rollout.join()
        for number in range(8):
            assert (await rollout.status()).phase == "Running", number
            (lease,) = (await rollout.link.lease(1, record.version)).leases
            wrong = played(lease, record, segments=[], end_reason="environment_error", error=error)
            assert (await rollout.link.trajectories([wrong])).accepted == [lease.lease_id]
        deadline = time.monotonic() + 30
        while (status := await rollout.status()).phase != "Failed":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        for words in ("environment_error", "FileNotFoundError: [31m/data/questions.jsonl", "environment.failAfter 8"):
            assert words in status.message
        assert status.failures.in_a_row == status.failures.count == 8
        assert status.ledger.discarded_share == 1.0
        assert (await rollout.link.lease(1, record.version)).reason == "Finished"
    async with serving(job, tmp_path) as rollout:
        status = await rollout.status()
        assert status.phase == "Running", "whoever starts it again means to try again"
        assert status.failures.in_a_row == 0
        assert status.failures.last == "FileNotFoundError: [31m/data/questions.jsonl"
        assert status.throughput.tokens_per_second == 0.0


async def test_a_door_of_its_own_limits(job: AsyncPPOJob, tmp_path: Path) -> None:
    """A rollout may lie: the learner judges again."""
    lies: list[dict[str, object]] = [
        {"reward": 1e20},
        {"token_ids": [1, 2, (1 << 31) - 1]},
        {"token_ids": [1, 2, 1] + [1] * 30},
    ]
    async with serving(job, tmp_path) as rollout:
        record = await rollout.join()
        for lie in lies:
            (lease,) = (await rollout.link.lease(1, record.version)).leases
            await rollout.link.trajectories([played(lease, record, **lie)])
        status = await rollout.status()
        assert status.ledger.discarded == {
            "context_exceeded": 1,
            "reward_out_of_bounds": 1,
            "token_out_of_vocabulary": 1,
        }
        assert status.ledger.waiting == 0
        assert status.ledger.balanced


async def test_what_an_older_program_took_does_not_end_this_one(job: AsyncPPOJob, tmp_path: Path) -> None:
    async with serving(job, tmp_path):
        pass
    with LedgerReader.open_read_only(tmp_path / "ledger.db") as reader:
        settings = reader.settings
    older = Ledger.open(tmp_path / "ledger.db", settings, 0.0)  # without limits, as it was before
    record = older.version(0)
    assert record is not None
    member = older.join("r", "http://127.0.0.1:9", 0.0)
    sender = MemberGuard(job_uid="uid-1", name="r", incarnation=member.incarnation).envelope()
    older.ready(sender, 0, record.published_hash, 0.0)
    poisoned = [
        played(lease, record, reward=1e300) if lease.lease_id == 1 else played(lease, record)
        for lease in older.grant(sender, 0, 2, 8, 60.0, 0.0)
    ]
    assert older.receive(sender, poisoned, 0.0).complete == [0], "it waits to be trained on"
    older.close()
    async with serving(job, tmp_path) as rollout:
        status = await rollout.status()
        (note,) = status.notes
        assert note.startswith("1 trajectory of the ledger could not have been trained on and was discarded")
        assert "1e+300" in note
        assert status.ledger.discarded == {"reward_out_of_bounds": 1}
        assert status.ledger.waiting == 1
        assert status.ledger.balanced


async def test_another_jobs_storage_is_gone_on_with_only_where_that_is_asked_for(
    job: AsyncPPOJob, tmp_path: Path
) -> None:
    async with serving(job, tmp_path):
        pass
    refusing = LearnerProgram(Arguments(changed(job, "uid-2"), tmp_path, "127.0.0.1", 0, TOKEN))
    with pytest.raises(LedgerUnusableError, match=r"another job.*learner\.adoptStorage"):
        await refusing.run()
    async with serving(changed(job, "uid-2", adopt_storage=True), tmp_path) as rollout:
        assert (await rollout.join()).version == 0
    async with serving(changed(job, "uid-2"), tmp_path):
        pass  # it is this job's from now on


async def test_going_back_past_a_checkpoint_that_is_gone_is_told(job: AsyncPPOJob, tmp_path: Path) -> None:
    async with serving(job, tmp_path):
        pass
    with LedgerReader.open_read_only(tmp_path / "ledger.db") as reader:
        settings, first = reader.settings, reader.version(0)
    assert first is not None
    older = Ledger.open(tmp_path / "ledger.db", settings, 0.0)
    for version in (1, 2):
        record = structs.replace(first, version=version, parent=version - 1, reason="step")
        line = json.encode(UpdateMetrics(update=version, version=version, at_seconds=0.0, reward=0.0))
        gone = "checkpoints/00000002" if version == 2 else ""
        older.publish(record, None, [], [], line, 0.0, checkpoint=gone)
    older.close()
    (tmp_path / "weights" / file_name(3)).write_bytes(b"of a crash")
    async with serving(job, tmp_path) as rollout:
        notes = (await rollout.status()).notes
    assert notes == [
        f"not in the ledger, so set aside under another name (remove it when you need the room): {file_name(3)}.unknown",
        "checkpoint 2 is not there any more, so the run went back from version 2 to checkpoint 0: "
        "2 updates undone, to be taken again from update 0",
    ]
