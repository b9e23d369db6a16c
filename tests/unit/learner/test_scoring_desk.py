"""What the learner hands to old-logit workers, what it believes of their answers, and when it stops counting on them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.unit.api.builders import spec as make_spec
from tests.unit.ledger.builders import Job, settings, trajectory

from asyncppo.errors import RefusedError
from asyncppo.sync.columns import SealRule
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.old_logits import GiveBackWork, Scored, SegmentScore, TakeWork, Work, WorkerJoin
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.scoring import ScoreOutcome
from asyncppo_runtime.learner.scoring_desk import FAILURES_OF_A_VERSION, ScoringDesk
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.weights.store import WeightStore

DEDICATED = {
    "oldLogits.strategy": "Dedicated",
    "oldLogit.unavailableAfterSeconds": 60.0,
    "oldLogit.replicas": 2,
}


class Inline:
    """The ledger's thread is the test's."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def __call__(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return method(self.ledger, *arguments)


@dataclass
class Scene:
    """A desk over a ledger that holds two unscored trajectories of version 0."""

    job: Job
    desk: ScoringDesk
    outcomes: list[ScoreOutcome] = field(default_factory=list)

    async def join(self, name: str = "w0") -> Envelope:
        joined = await self.desk.join(WorkerJoin("job-1", name, "http://w:8080"))
        return Envelope(job_uid="job-1", epoch=0, target=name, incarnation=joined.incarnation)

    async def take(self, worker: Envelope, loaded: int = -1) -> Work:
        return await self.desk.take(TakeWork(worker, loaded, 0.0))

    async def answer(
        self, worker: Envelope, work: Work, *, train_hash: str = "train-0", shift: float = 0.0
    ) -> tuple[int, int, int]:
        behavior = {item.key: item.behavior_logprobs for item in self.job.ledger.unscored()}
        by_lease = {(key.lease_id, key.index): values for key, values in behavior.items()}
        scores = [
            SegmentScore(
                one.lease_id,
                one.index,
                one.digest,
                [float(v) + shift for v in by_lease.get((one.lease_id, one.index), [-0.5] * (one.end - one.start))],
            )
            for one in work.segments
        ]
        reply = await self.desk.scores(Scored(worker, 0, train_hash, scores))
        return reply.recorded, reply.known, reply.refused


@asynccontextmanager
async def scene(tmp_path: Path, *, weights_hash: str | None = None) -> AsyncIterator[Scene]:
    job = Job(tmp_path / "ledger.db", settings(seal_rule=SealRule.NONE))
    job.publish(0)
    member = job.member()
    leases = job.grant(member, 2)
    job.ledger.receive(member, [trajectory(lease, weights_hash=weights_hash) for lease in leases], 0.0)
    store = WeightStore(tmp_path / "snapshots")
    store.publish(0, {"weight": torch.ones(3)})
    owner = cast("OwnThread[Ledger]", Inline(job.ledger))
    made: list[Scene] = []

    async def record(outcome: ScoreOutcome) -> bool:
        made[0].outcomes.append(outcome)
        await owner(Ledger.record_scores, outcome.scores, 0.0)
        for reason, keys in outcome.discarded.items():
            await owner(Ledger.discard_segments, keys, reason, 0.0)
        return not outcome.discarded

    desk = ScoringDesk(make_spec(DEDICATED), owner, store, Notice(), record, lambda: False)
    made.append(Scene(job, desk))
    try:
        yield made[0]
        job.check()
    finally:
        job.ledger.close()


def run(play: Callable[[Scene], Awaitable[None]], tmp_path: Path, **options: Any) -> None:
    async def course() -> None:
        async with scene(tmp_path, **options) as stage:
            await play(stage)

    asyncio.run(course())


def test_work_carries_context_and_the_train_side_record(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        work = await stage.take(await stage.join())
        assert [len(one.token_ids) for one in work.segments] == [4, 4]
        assert [(one.start, one.end) for one in work.segments] == [(1, 4), (1, 4)]
        assert work.record is not None
        assert work.record.train_hash == work.record.published_hash == "train-0"
        assert work.record.file_size == (tmp_path / "snapshots" / "v00000000.safetensors").stat().st_size

    run(play, tmp_path)


def test_scores_are_recorded_once_whoever_sends_them(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        worker = await stage.join()
        work = await stage.take(worker)
        assert await stage.answer(worker, work) == (2, 0, 0)
        assert await stage.answer(worker, work) == (0, 2, 0), "a second time is no error and changes nothing"
        assert stage.job.ledger.totals().tokens.scored == 6
        assert not (await stage.take(worker, 0)).segments
        assert stage.desk.queue.drained(0)

    run(play, tmp_path)


def test_scores_of_other_weights_are_refused_whole(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        worker = await stage.join()
        work = await stage.take(worker)
        with pytest.raises(RefusedError, match="the scorer holds weights") as refused:
            await stage.answer(worker, work, train_hash="train-1")
        assert refused.value.reason == "WrongWeights"
        assert stage.job.ledger.totals().tokens.scored == 0
        again = await stage.take(await stage.join("w1"))
        assert len(again.segments) == 2, "what it had goes to another"

    run(play, tmp_path)


def test_scores_far_from_the_engines_are_taken_for_mislabelled(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        worker = await stage.join()
        assert await stage.answer(worker, await stage.take(worker), shift=5.0) == (0, 0, 2)
        assert list(stage.outcomes[-1].discarded) == ["mislabelled"]
        assert stage.job.ledger.totals().tokens.discarded == {"mislabelled": 6}

    run(play, tmp_path)


def test_a_segment_whose_engine_held_other_bytes_is_never_handed_out(tmp_path: Path) -> None:
    # The ledger refuses such an upload itself; the desk does not count on it.
    async def play(stage: Scene) -> None:
        stage.job.ledger._db.connection.execute("UPDATE segments SET weights_hash = 'forged' WHERE position = 0")
        assert not (await stage.take(await stage.join())).segments
        assert list(stage.outcomes[-1].discarded) == ["hash_mismatch"]

    run(play, tmp_path)


def test_a_worker_that_comes_back_loses_what_it_had(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        first = await stage.join()
        assert len((await stage.take(first)).segments) == 2
        other = await stage.join("w1")
        assert not (await stage.take(other)).segments, "all work is taken"
        second = await stage.join()
        assert len((await stage.take(other)).segments) == 2
        with pytest.raises(RefusedError) as refused:
            await stage.take(first)
        assert refused.value.reason == "NotJoined"
        assert not (await stage.take(second)).segments

    run(play, tmp_path)


def test_after_a_restart_of_the_learner_the_queue_comes_from_the_ledger(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        worker = await stage.join()
        work = await stage.take(worker)
        store = WeightStore(tmp_path / "snapshots")
        again = ScoringDesk(make_spec(DEDICATED), stage.desk._ledger, store, Notice(), stage.desk._take, lambda: False)
        with pytest.raises(RefusedError) as refused:
            await again.take(TakeWork(worker, 0, 0.0))
        assert refused.value.reason == "NotJoined"
        stage.desk = again
        assert len((await stage.take(await stage.join())).segments) == 2
        assert await stage.answer(worker, work) == (2, 0, 0), "work of before the restart is still good"

    run(play, tmp_path)


def test_weights_that_are_gone_make_their_version_unavailable(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        worker = await stage.join()
        (tmp_path / "snapshots" / "v00000000.safetensors").unlink()
        assert not (await stage.take(worker)).segments
        assert "not on the volume" in stage.desk.unavailable({0})[0]
        assert stage.desk.unavailable({1}) == {}

    run(play, tmp_path)


def test_weights_that_nobody_can_load_count_as_gone(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        worker = await stage.join()
        for _ in range(FAILURES_OF_A_VERSION):
            assert stage.desk.unavailable({0}) == {}
            assert (await stage.take(worker)).segments
            await stage.desk.give_back(GiveBackWork(worker, 0, "hashes to something else"))
        assert stage.desk.unavailable({0}) == {0: "hashes to something else"}

    run(play, tmp_path)


def test_silence_makes_every_version_unavailable_but_a_busy_worker_is_not_silent(tmp_path: Path) -> None:
    async def play(stage: Scene) -> None:
        worker = await stage.join()
        await stage.take(worker)
        stage.desk.availability.heard_at -= 61.0
        assert stage.desk.silence() == "", "its lease is not over"
        stage.desk.queue.lose("w0")
        assert "no old-logit worker" in stage.desk.unavailable({0, 3})[3]
        assert stage.desk.behind() == "", "nobody to wait for"

    run(play, tmp_path)
