"""The pull: resumed, verified, bounded; the folder never shows a file that is not the record's."""

import asyncio
import gzip
import os
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.weights.builders import answer_with, cut_after, full_disk, record_of_bytes, sender, session, tensors

from asyncppo_runtime.weights.errors import (
    WeightsGoneError,
    WeightsRefusedError,
    WeightsStorageError,
    WeightsUnreachableError,
)
from asyncppo_runtime.weights.files import file_name
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.pull import HttpTransport, PullLimits, pull
from asyncppo_runtime.weights.store import load_tensors

QUICK = PullLimits(attempts=3, idle=5.0, pause=0.001, longest_pause=0.002)
BODY = os.urandom(300_000)


def visible(directory: Path) -> list[str]:
    """Files anyone could take for weights."""
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(".safetensors"))


async def test_a_pulled_file_is_the_published_one(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.publish(4, seed=9)
        path = await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert path == tmp_path / "rollout" / file_name(4)
        assert tensors_hash(load_tensors(path)) == tensors_hash(tensors(9))
        assert await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK) == path
        assert len(learner.ranges) == 1


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 200_000), max_size=4))
def test_a_cut_transfer_goes_on_where_it_stopped(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    async def scenario() -> None:
        folder = tmp_path_factory.mktemp("pull")
        async with sender(folder / "learner") as learner, session() as client:
            record = learner.put(BODY)
            learner.faults = [cut_after(BODY, count) for count in cuts]
            path = await pull(client, learner.base_url, record, folder / "rollout", PullLimits(6, 5.0, 0.001, 0.002))
            assert path.read_bytes() == BODY
            starts = [int(text.removeprefix("bytes=").rstrip("-") or 0) for text in learner.ranges]
            assert starts == sorted(starts)
            # Bytes that have arrived are never asked for again.
            assert all(start <= sum(cuts[:index]) for index, start in enumerate(starts))

    asyncio.run(scenario())


async def test_a_killed_pull_is_resumed_by_the_next(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        arrived, over = asyncio.Event(), asyncio.Event()

        async def hang(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": str(len(BODY))})
            await response.prepare(request)
            await response.write(BODY[:100_000])
            arrived.set()
            await over.wait()
            return response

        learner.faults = [hang]
        task = asyncio.create_task(pull(client, learner.base_url, record, tmp_path / "rollout", QUICK))
        await arrived.wait()
        part = next(iter((tmp_path / "rollout").glob("*.part")), None)
        while part is None or part.stat().st_size < 50_000:
            await asyncio.sleep(0.01)
            part = next(iter((tmp_path / "rollout").glob("*.part")), None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert visible(tmp_path / "rollout") == []
        there = part.stat().st_size
        path = await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert path.read_bytes() == BODY
        assert learner.ranges[1] == f"bytes={there}-"
        over.set()


async def test_a_silent_sender_is_given_up(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record, over = learner.put(BODY), asyncio.Event()

        async def silent(request: web.Request) -> web.StreamResponse:
            await over.wait()
            return web.Response()

        learner.faults = [silent, silent]
        limits = PullLimits(attempts=3, idle=0.2, pause=0.001)
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", limits)).read_bytes() == BODY
        over.set()


async def test_a_redirect_is_not_followed_and_a_compressed_answer_not_inflated(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, sender(tmp_path / "other") as other, session() as client:
        record = learner.put(BODY)
        other.put(BODY)

        async def elsewhere(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": other.base_url + request.path})

        async def compressed(request: web.Request) -> web.StreamResponse:
            return web.Response(body=gzip.compress(BODY), headers={"Content-Encoding": "gzip"})

        for fault, words in ((elsewhere, "not followed"), (compressed, "compressed")):
            learner.faults = [fault] * QUICK.attempts
            with pytest.raises(WeightsUnreachableError, match=words):
                await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert other.ranges == []
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)).read_bytes() == BODY


async def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        learner.store.path(0).write_bytes(BODY[:1000] + bytes([BODY[1000] ^ 1]) + BODY[1001:])
        with pytest.raises(WeightsRefusedError, match="hash that is not its record's"):
            await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert len(learner.ranges) == 2
        assert visible(tmp_path / "rollout") == []


async def test_a_byte_flipped_on_the_way_once_is_fetched_again(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        learner.faults = [answer_with(200, BODY[:-1] + bytes([BODY[-1] ^ 1]))]
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)).read_bytes() == BODY


async def test_a_truncated_sender_is_never_taken_for_whole(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        learner.store.path(0).write_bytes(BODY[:100_000])
        with pytest.raises(WeightsRefusedError, match="or damaged"):
            await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert visible(tmp_path / "rollout") == []


async def test_a_sender_of_too_much_is_refused(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        learner.faults = [answer_with(200, BODY + b"x")]
        with pytest.raises(WeightsRefusedError, match="more than"):
            await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert visible(tmp_path / "rollout") == []


async def test_a_sender_that_ignores_ranges_or_answers_another_one(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        other = answer_with(206, BODY[10:], {"Content-Range": f"bytes 10-{len(BODY) - 1}/{len(BODY)}"})
        learner.faults = [cut_after(BODY, 1000), other, answer_with(200, BODY)]
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)).read_bytes() == BODY


async def test_a_part_longer_than_the_file_starts_again(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        (tmp_path / "rollout").mkdir()
        part = tmp_path / "rollout" / f"{file_name(0)}.{record.file_sha256[:16]}.part"
        part.write_bytes(BODY + b"more")
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)).read_bytes() == BODY


async def test_a_damaged_file_under_the_final_name_is_replaced(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        (tmp_path / "rollout").mkdir()
        (tmp_path / "rollout" / file_name(0)).write_bytes(b"old")
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)).read_bytes() == BODY


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, WeightsGoneError), (410, WeightsGoneError), (401, WeightsRefusedError), (412, WeightsRefusedError)],
)
async def test_some_answers_are_final(tmp_path: Path, status: int, error: type[Exception]) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        learner.faults = [answer_with(status)]
        with pytest.raises(error):
            await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert len(learner.ranges) == 1


async def test_others_are_tried_again_a_bounded_number_of_times(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        learner.faults = [answer_with(503), answer_with(416)]
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)).read_bytes() == BODY
        learner.faults = [answer_with(500)] * 9
        with pytest.raises(WeightsUnreachableError, match=r"3 attempts.*status 500"):
            await pull(client, learner.base_url, record, tmp_path / "other", QUICK)


async def test_nobody_listens(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner:
        base_url = learner.base_url
    async with session() as client:
        with pytest.raises(WeightsUnreachableError, match="3 attempts brought nothing new"):
            await pull(client, base_url, record_of_bytes(BODY), tmp_path / "rollout", QUICK)


async def test_pulls_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record, other = learner.put(BODY, 0), learner.put(BODY[::-1], 1)
        pulls = [pull(client, learner.base_url, one, tmp_path / "rollout", QUICK) for one in [record] * 5 + [other] * 3]
        paths = await asyncio.gather(*pulls)
        assert len(learner.ranges) == 2
        assert {path.name for path in paths} == {file_name(0), file_name(1)}
        assert paths[0].read_bytes() == BODY


async def test_many_rollouts_pull_at_once(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        paths = await asyncio.gather(
            *(pull(client, learner.base_url, record, tmp_path / f"rollout-{number}", QUICK) for number in range(8))
        )
        assert all(path.read_bytes() == BODY for path in paths)


async def test_the_transport_keeps_what_it_is_told(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        transport = HttpTransport(client, learner.base_url, tmp_path / "rollout", QUICK)
        transport.keep({0})
        for version in (0, 1, 2):
            await transport.fetch(learner.put(BODY[version:], version))
        (tmp_path / "rollout" / f"{file_name(1)}.abcd.part").write_bytes(b"x")
        (tmp_path / "rollout" / f"{file_name(2)}.abcd.part").write_bytes(b"x")
        (tmp_path / "rollout" / "notes.txt").write_text("mine")
        transport.keep({2})
        assert sorted(path.name for path in (tmp_path / "rollout").iterdir()) == [
            f".{file_name(2)}.lock",
            "notes.txt",
            file_name(2),
            f"{file_name(2)}.abcd.part",
        ]


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        with pytest.raises(WeightsStorageError, match="could not be written"):
            await pull(client, learner.base_url, record, tmp_path / "file" / "rollout", QUICK)


async def test_a_full_disk_is_named_and_the_rest_is_fetched_when_there_is_room(tmp_path: Path) -> None:
    async with sender(tmp_path / "learner") as learner, session() as client:
        record = learner.put(BODY)
        with full_disk(50_000), pytest.raises(WeightsStorageError, match="free space"):
            await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)
        assert visible(tmp_path / "rollout") == []
        assert (await pull(client, learner.base_url, record, tmp_path / "rollout", QUICK)).read_bytes() == BODY
        assert learner.ranges[1] == "bytes=50000-"
