"""A whole worker against a learner over HTTP: joining, sampling, syncs, fencing, drains, the end of the job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.integration.rollout.learner_double import TOKEN, UID, LearnerDouble
from tests.unit.rollout.builders import brute_force, job_spec, model_of

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import RefusedError
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.experience import segment_digest
from asyncppo.wire.membership import Member, MemberState
from asyncppo.wire.server import serve
from asyncppo.wire.versions import Canary
from asyncppo_runtime.policy import policy_tensors
from asyncppo_runtime.rollout.engines.interface import EngineError
from asyncppo_runtime.rollout.engines.registry import make_engine
from asyncppo_runtime.rollout.worker import Worker

NAME = "rollout-0"


def tensors(seed: int, **parts: Any) -> dict[str, torch.Tensor]:
    """The published tensors of a version made from `seed`."""
    return {k: v.detach().clone() for k, v in policy_tensors(model_of(job_spec(**parts), seed)).items()}


class Working(NamedTuple):
    """A worker and where its control port is."""

    worker: Worker
    url: str


@asynccontextmanager
async def working(learner: LearnerDouble, directory: Path, **parts: Any) -> AsyncIterator[Working]:
    """A worker in this process; drained and stopped at the end."""
    job = AsyncPPOJob.model_validate(
        {
            "apiVersion": "asyncppo.io/v1alpha1",
            "kind": "AsyncPPOJob",
            "metadata": {"name": "j", "uid": UID},
            "spec": job_spec(**parts),
        }
    )
    async with WireClient(TOKEN) as client:
        worker = Worker(job, make_engine(job.spec), client, name=NAME, learner=learner.url, directory=directory)
        runner, port = await serve(worker.application(TOKEN), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{port}"
        task = asyncio.create_task(worker.run(url, 20.0))
        try:
            yield Working(worker, url)
        finally:
            worker.stop()
            try:
                async with asyncio.timeout(60):
                    await task
            finally:
                await runner.cleanup()


async def test_it_joins_loads_samples_and_leaves_in_good_order(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            await learner.ready(NAME)
            await learner.until(lambda: len(learner.received) >= 20)
        assert learner.members[NAME].state is MemberState.LEFT
        assert not learner.in_flight
    model = model_of(job_spec(), 1)
    for trajectory in learner.received.values():
        assert trajectory.finished
        assert trajectory.end_reason in ("done", "max_turns", "overlong")
        logprobs = brute_force(model, trajectory.token_ids)
        for segment in trajectory.segments:
            assert segment.version == 0
            assert segment.weights_hash == learner.records[0].published_hash
            exact = logprobs[segment.start - 1 : segment.end - 1]
            assert max(abs(a - b) for a, b in zip(exact, segment.logprobs, strict=True)) < 1e-9


async def test_a_sync_flushes_every_segment_and_goes_on_under_the_next_version(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            await learner.ready(NAME)
            await learner.until(lambda: len(learner.received) >= 10)
            learner.begin()
            paused = await learner.pause(NAME)
            assert paused.version == 0
            manifest = await learner.flush(NAME, 0)
            held = {t.lease_id: t for t in [*learner.partial.values(), *learner.received.values()]}
            for entry in manifest.entries:
                segment = held[entry.lease_id].segments[entry.index]
                assert segment_digest(held[entry.lease_id].token_ids, segment) == entry.digest
            named = {(entry.lease_id, entry.index) for entry in manifest.entries}
            assert {(t.lease_id, s.index) for t in learner.partial.values() for s in t.segments} <= named
            assert await learner.flush(NAME, 0) == manifest
            learner.sealed = 0
            record = learner.publish(1, tensors(2))
            ids = [1, 5, 9, 4]
            canary = Canary(ids, brute_force(model_of(job_spec(), 2), ids), 1e-9)
            loaded = await learner.load(NAME, record, canary)
            assert loaded.weights_hash == record.published_hash
            assert loaded.canary_error < 1e-9
            learner.finish(1)
            await learner.resume(NAME, 1)
            before = set(learner.received)
            await learner.until(lambda: len(set(learner.received) - before) >= 30)
    models = {0: model_of(job_spec(), 1), 1: model_of(job_spec(), 2)}
    mixed = 0
    for trajectory in learner.received.values():
        versions = [segment.version for segment in trajectory.segments]
        assert versions == sorted(versions)
        mixed += len(set(versions)) > 1
        for segment in trajectory.segments:
            exact = brute_force(models[segment.version], trajectory.token_ids)[segment.start - 1 : segment.end - 1]
            assert max(abs(a - b) for a, b in zip(exact, segment.logprobs, strict=True)) < 1e-9
    for lease_id, partial in learner.partial.items():
        if lease_id in learner.received:
            whole = learner.received[lease_id]
            assert whole.segments[: len(partial.segments)] == partial.segments
            assert whole.token_ids[: len(partial.token_ids)] == partial.token_ids
    assert mixed or not learner.partial


async def test_a_publication_with_a_wrong_canary_is_refused_and_the_old_version_serves_on(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            await learner.ready(NAME)
            learner.begin()
            await learner.pause(NAME)
            record = learner.publish(1, tensors(2))
            ids = [1, 5, 9, 4]
            wrong = Canary(ids, brute_force(model_of(job_spec(), 3), ids), 1e-6)
            with pytest.raises(RefusedError, match="CanaryFailed"):
                await learner.load(NAME, record, wrong)
            learner.finish(0)
            await learner.resume(NAME, 0)
            before = len(learner.received)
            await learner.until(lambda: len(learner.received) >= before + 20)
    model = model_of(job_spec(), 1)
    last = list(learner.received.values())[-1]
    exact = brute_force(model, last.token_ids)
    for segment in last.segments:
        assert segment.version == 0
        assert (
            max(abs(exact[p - 1] - segment.logprobs[p - segment.start]) for p in range(segment.start, segment.end))
            < 1e-9
        )


async def test_a_truncated_weights_file_is_refused_and_the_old_version_serves_on(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            await learner.ready(NAME)
            learner.begin()
            await learner.pause(NAME)
            record = learner.publish(1, tensors(2))
            path = learner.store.path(1)
            content = bytearray(path.read_bytes())
            content[-8:] = b"\xff" * 8
            path.write_bytes(bytes(content))
            with pytest.raises(RefusedError, match="WeightsRejected"):
                await learner.load(NAME, record)
            learner.finish(0)
            await learner.resume(NAME, 0)
            before = len(learner.received)
            await learner.until(lambda: len(learner.received) >= before + 5)
        assert all(s.version == 0 for t in learner.received.values() for s in t.segments)


async def test_a_fenced_worker_joins_again_and_delivers_its_outbox(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            first = await learner.ready(NAME)
            await learner.until(lambda: len(learner.received) >= 5)
            learner.fence(NAME)
            await learner.until(lambda: learner.members[NAME].incarnation != first.incarnation)
            await learner.ready(NAME)
            before = len(learner.received)
            await learner.until(lambda: len(learner.received) >= before + 5)
        assert not learner.in_flight


async def test_a_member_that_missed_a_whole_sync_catches_up_by_itself(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            await learner.ready(NAME)
            learner.begin()
            await learner.pause(NAME)
            learner.publish(1, tensors(2))
            learner.finish(1)
            await learner.until(lambda: any(s.version == 1 for t in learner.received.values() for s in t.segments))


async def test_an_expired_pause_is_told_and_ends_by_the_learners_answer(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            await learner.ready(NAME)
            learner.begin()
            await learner.pause(NAME, ttl=0.1)
            before = len(learner.received)
            await learner.until(lambda: len(learner.received) >= before + 10)
            assert any(beat.pause_expired for beat in learner.beats)


async def test_no_command_is_taken_before_the_learner_is_there_and_joining_waits_for_it(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.down = True
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled") as worker:
            learner.members[NAME] = Member(NAME, 0, worker.url, MemberState.JOINING)
            with pytest.raises(RefusedError, match="NotJoined"):
                await learner.pause(NAME)
            del learner.members[NAME]
            learner.down = False
            await learner.ready(NAME)
            await learner.until(lambda: bool(learner.received))


async def test_an_environment_that_cancels_every_task_does_not_end_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        here = asyncio.current_task()
        async with working(learner, tmp_path / "pulled"):
            await learner.ready(NAME)
            await learner.until(lambda: len(learner.received) >= 5)
            for task in asyncio.all_tasks() - {here}:
                task.cancel()
            before, beats = len(learner.received), len(learner.beats)
            await learner.until(lambda: len(learner.received) >= before + 20 and len(learner.beats) > beats + 1)
        assert "the environment cancels tasks that are not its own" in caplog.text
        assert any("not its own" in one.error for one in learner.received.values())
        assert not learner.in_flight


async def test_a_refused_trajectory_is_not_sent_again(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store", capacity=12) as learner:
        learner.publish(0, tensors(1))
        learner.refuse = {2: "late", 3: "late"}
        async with working(learner, tmp_path / "pulled"):
            await learner.until(lambda: len(learner.received) == 10)
            await learner.until(
                lambda: bool(learner.beats) and learner.beats[-1].running == 0 and not learner.beats[-1].lease_ids
            )
        assert set(learner.leases) - set(learner.received) == {2, 3}


async def test_a_lost_lease_is_dropped(tmp_path: Path) -> None:
    slow = {"type": "GuessNumber", "parameters": {"delaySeconds": 3600}, "stepTimeoutSeconds": 7200}
    async with LearnerDouble(tmp_path / "store", capacity=8) as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled", environment=slow):
            await learner.until(lambda: any(len(beat.lease_ids) == 8 for beat in learner.beats))
            learner.lost = {1, 2}
            await learner.until(lambda: set(learner.beats[-1].lease_ids) == {3, 4, 5, 6, 7, 8})
        assert learner.returned == {3, 4, 5, 6, 7, 8}


async def test_environment_steps_that_end_during_a_pause_are_kept_and_generation_waits(tmp_path: Path) -> None:
    slow = {"type": "GuessNumber", "parameters": {"delaySeconds": 0.2}}
    async with LearnerDouble(tmp_path / "store", capacity=8) as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled", environment=slow):
            await learner.until(lambda: bool(learner.beats) and learner.beats[-1].sampled_tokens > 0)
            learner.begin()
            await learner.pause(NAME)
            await learner.flush(NAME, 0)
            first = {k: len(t.segments) for k, t in learner.partial.items()}
            assert first
            await learner.until(lambda: learner.beats[-1].paused)
            tokens = learner.beats[-1].sampled_tokens
            beats = len(learner.beats)
            await learner.until(lambda: len(learner.beats) >= beats + 2)
            assert learner.beats[-1].sampled_tokens == tokens
            learner.finish(0)
            await learner.resume(NAME, 0)
            await learner.until(lambda: len(learner.received) == 8)


async def test_when_the_job_is_over_it_parks_until_told_to_stop(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            member = await learner.ready(NAME)
            learner.finished = True
            await learner.until(lambda: learner.members[NAME].state is MemberState.LEFT)
            assert not learner.in_flight
            async with learner.client.session.get(member.url + routes.READYZ) as response:
                assert response.status == 503
                assert "over" in await response.text()


async def test_a_drained_worker_hands_everything_back_leaves_and_parks(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            member = await learner.ready(NAME)
            await learner.until(lambda: len(learner.received) >= 5)
            learner.members[NAME] = Member(NAME, member.incarnation, member.url, MemberState.DRAINING)
            await learner.until(lambda: learner.members[NAME].state is MemberState.LEFT)
            assert not learner.in_flight
            async with learner.client.session.get(member.url + routes.READYZ) as response:
                assert response.status == 503


async def test_an_engine_that_keeps_failing_ends_the_worker_with_its_reason(tmp_path: Path) -> None:
    broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in tensors(1).items()}
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, broken)
        with pytest.raises(EngineError, match="not finite"):
            async with working(learner, tmp_path / "pulled"):
                await learner.until(lambda: len(learner.returned) >= 8)
        assert not learner.in_flight


async def test_a_learner_that_is_away_for_a_while_loses_nothing(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            first = await learner.ready(NAME)
            await learner.until(lambda: len(learner.received) >= 5)
            learner.down = True
            leased = set(learner.leases)
            beats = len(learner.beats)
            await asyncio.sleep(1.5)
            assert len(learner.beats) == beats
            learner.down = False
            await learner.until(lambda: leased <= set(learner.received))
            assert learner.members[NAME].incarnation == first.incarnation


async def test_leaving_waits_for_an_open_sync(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled") as running:
            await learner.ready(NAME)
            learner.begin()
            await learner.pause(NAME)
            running.worker.stop()
            await learner.until(lambda: not learner.in_flight)
            assert (await learner.flush(NAME, 0)).entries is not None
            assert learner.members[NAME].state is MemberState.READY
            learner.finish(0)
            await learner.until(lambda: learner.members[NAME].state is MemberState.LEFT)


async def test_metrics_and_probes(tmp_path: Path) -> None:
    async with LearnerDouble(tmp_path / "store") as learner:
        learner.publish(0, tensors(1))
        async with working(learner, tmp_path / "pulled"):
            member = await learner.ready(NAME)
            await learner.until(lambda: len(learner.received) >= 5)
            session = learner.client.session
            async with session.get(member.url + routes.READYZ) as response:
                assert response.status == 200
            async with session.get(member.url + routes.METRICS) as response:
                text = await response.text()
            assert "asyncppo_rollout_policy_version 0.0" in text
            assert 'asyncppo_rollout_loads_total{result="loaded"} 1.0' in text
            async with session.post(member.url + routes.PAUSE, headers={"Authorization": "Bearer wrong"}) as response:
                assert response.status == 401
