"""Pausing, loading and going on: what every engine promises about the change from one version to the next."""

import asyncio
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.engine_contract.builders import CONTEXT, Version, errors, logprobs_of, prompt_of, publish, request
from tests.engine_contract.conftest import Subject

from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateResult, WeightsRejectedError

pytestmark = pytest.mark.asyncio(loop_scope="package")


def _start(subject: Subject, prompts: list[list[int]]) -> list[asyncio.Task[GenerateResult]]:
    """Requests that would fill their contexts."""
    return [
        asyncio.create_task(subject.engine.generate(request(prompt, CONTEXT - len(prompt), session=f"s{index}")))
        for index, prompt in enumerate(prompts)
    ]


async def test_a_pause_gives_back_partial_ids_and_nothing_comes_later(subject: Subject) -> None:
    prompts = [prompt_of(1000 + index) for index in range(24)]
    calls = _start(subject, prompts)
    await subject.until(lambda: subject.engine.running == len(prompts))
    await asyncio.sleep(0.05)
    await subject.engine.pause()
    assert all(call.done() for call in calls)
    assert subject.engine.running == 0
    results = [call.result() for call in calls]
    assert any(result.finish_reason == "interrupted" for result in results)
    for prompt, result in zip(prompts, results, strict=True):
        assert len(result.logprobs) == len(result.token_ids) == sum(span.end - span.start for span in result.spans)
        assert max(map(abs, errors(subject.versions, prompt, result)), default=0.0) < 1e-4
    await subject.engine.resume()


async def test_every_token_is_exact_under_the_version_it_is_tagged_with(subject: Subject) -> None:
    contexts = [prompt_of(2000 + index) for index in range(16)]
    tags: list[list[int]] = [[] for _ in contexts]
    for _ in range(20):
        rows = [index for index, context in enumerate(contexts) if len(context) < CONTEXT]
        calls = _start(subject, [contexts[index] for index in rows])
        if len({tag for row in tags for tag in row}) < 4:
            await subject.until(lambda: subject.engine.running > 0)
            await asyncio.sleep(0.04)
            await subject.swap()
        for index, result in zip(rows, await asyncio.gather(*calls), strict=True):
            assert max(map(abs, errors(subject.versions, contexts[index], result)), default=0.0) < 1e-4
            contexts[index] = contexts[index] + result.token_ids
            tags[index] += [span.version for span in result.spans]
        if not rows:
            break
    assert all(len(context) == CONTEXT for context in contexts)
    assert any(len(set(row)) >= 3 for row in tags), f"no sequence crossed two swaps: {tags}"


async def test_while_paused_a_new_call_waits_and_the_canary_does_not(subject: Subject) -> None:
    await subject.engine.pause()
    waiting = asyncio.create_task(subject.engine.generate(request(prompt_of(3000), 8)))
    version = subject.new_version()
    await subject.engine.load(version.path, version.record)
    canary = prompt_of(3001, 24)
    found = await subject.engine.prompt_logprobs(canary)
    assert found == pytest.approx(logprobs_of(version.model, canary), abs=1e-4)
    assert not waiting.done()
    assert subject.engine.running == 0
    await subject.engine.resume()
    assert [span.version for span in (await waiting).spans] == [version.record.version]


async def test_no_kv_of_the_old_version_is_read_under_the_new_one(subject: Subject) -> None:
    prompt = prompt_of(3100, 100)
    for _ in range(2):
        result = await subject.engine.generate(request(prompt, 8, session="same"))
        assert max(map(abs, errors(subject.versions, prompt, result))) < 1e-4
        await subject.swap()
    result = await subject.engine.generate(request(prompt, 8, session="same"))
    assert max(map(abs, errors(subject.versions, prompt, result))) < 1e-4
    assert result.spans[0].version == subject.engine.version


async def test_pause_and_resume_may_be_said_twice(subject: Subject) -> None:
    await subject.engine.pause()
    await subject.engine.pause()
    await subject.engine.resume()
    await subject.engine.resume()
    assert len((await subject.engine.generate(request(prompt_of(3200), 4))).token_ids) == 4


async def test_load_is_refused_while_sampling(subject: Subject) -> None:
    version = subject.new_version()
    with pytest.raises(EngineError, match="not paused"):
        await subject.engine.load(version.path, version.record)
    del subject.versions[version.record.version]


def _truncated(version: Version) -> None:
    content = version.path.read_bytes()
    version.path.write_bytes(content[: len(content) // 2])


def _renamed(version: Version) -> None:
    tensors = load_file(version.path)
    tensors["model.layers.9.mlp.up_proj.weight"] = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, version.path)


def _missing(version: Version) -> None:
    tensors = load_file(version.path)
    del tensors["model.norm.weight"]
    save_file(tensors, version.path)


def _reshaped(version: Version) -> None:
    tensors = load_file(version.path)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:, :32].contiguous()
    save_file(tensors, version.path)


def _other_dtype(version: Version) -> None:
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(version.path).items()}, version.path)


def _one_bit(version: Version) -> None:
    tensors = load_file(version.path)
    tensors["model.norm.weight"].view(torch.int32)[0] ^= 1
    save_file(tensors, version.path)


def _gone(version: Version) -> None:
    version.path.unlink()


@pytest.mark.parametrize("spoil", [_truncated, _renamed, _missing, _reshaped, _other_dtype, _one_bit, _gone])
async def test_a_bad_file_leaves_the_old_version_serving(subject: Subject, tmp_path: Path, spoil: object) -> None:
    before = subject.current
    number = before.record.version + 1000
    bad = publish(subject.spec, tmp_path, number)
    spoil(bad)  # type: ignore[operator]
    await subject.engine.pause()
    with pytest.raises(WeightsRejectedError):
        await subject.engine.load(bad.path, bad.record)
    assert subject.engine.version == before.record.version
    canary = prompt_of(4000, 30)
    assert await subject.engine.prompt_logprobs(canary) == pytest.approx(logprobs_of(before.model, canary), abs=1e-4)
    await subject.engine.resume()
    result = await subject.engine.generate(request(canary, 8))
    assert max(map(abs, errors(subject.versions, canary, result))) < 1e-4
    await subject.swap()


async def test_a_record_of_another_version_is_refused(subject: Subject) -> None:
    version = subject.new_version()
    del subject.versions[version.record.version]
    await subject.engine.pause()
    with pytest.raises(WeightsRejectedError):
        await subject.engine.load(version.path, msgspec.structs.replace(version.record, published_hash="0" * 64))
    await subject.engine.resume()
