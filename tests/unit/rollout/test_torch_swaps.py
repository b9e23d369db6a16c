"""Pauses and weight swaps in mid-sequence: spans, partial results, KV that is dropped, loads that are all or nothing."""

import asyncio
import threading
import time
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.unit.rollout.builders import brute_force, job_spec, model_of, request, running_engine, write_version

from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateResult, Span, WeightsRejectedError
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.rollout.engines.torch_slots import Group
from asyncppo_runtime.rollout.randomness import continued_seed

SEQUENCE = 40


async def continued(engine: TorchEngine, session: str, seed: int) -> tuple[list[int], list[float], list[Span]]:
    """Sample SEQUENCE tokens after [1], asking again after each interruption as the agent loop does."""
    ids, logprobs, spans = [1], [], []
    while len(ids) <= SEQUENCE:
        at = len(ids)
        result = await engine.generate(request(ids, SEQUENCE + 1 - at, session=session, seed=continued_seed(seed, at)))
        ids += result.token_ids
        logprobs += result.logprobs
        spans += [Span(s.version, s.weights_hash, at + s.start, at + s.end) for s in result.spans]
    return ids, logprobs, spans


class Halts:
    """Makes the engine's thread wait for a command after given forwards, so that a pause always comes in mid-sequence."""

    def __init__(self, engine: TorchEngine, *forwards: int) -> None:
        self._engine = engine
        self._forwards = forwards
        self._done = 0
        self._advance = engine._advance
        self._reached = threading.Event()
        engine._advance = self  # type: ignore[method-assign, assignment]

    def __call__(self, group: Group) -> None:
        self._advance(group)
        self._done += 1
        if self._done in self._forwards:
            self._reached.set()
            while not self._engine._commands:
                time.sleep(0.0005)

    async def reached(self) -> None:
        """Until the next halt."""
        async with asyncio.timeout(60):
            await asyncio.to_thread(self._reached.wait)
        self._reached.clear()


async def swap(engine: TorchEngine, directory: Path, model: torch.nn.Module, version: int) -> None:
    """Pause, load, resume."""
    await engine.pause()
    await engine.load(*write_version(directory, model, version))
    await engine.resume()


def largest_error(
    models: dict[int, torch.nn.Module], ids: list[int], logprobs: list[float], spans: list[Span]
) -> float:
    """Against a plain forward of each span's own version."""
    exact = {version: brute_force(models[version], ids) for version in {span.version for span in spans}}
    return max(
        abs(exact[span.version][position - 1] - logprobs[position - 1])
        for span in spans
        for position in range(span.start, span.end)
    )


async def test_forced_swaps_in_mid_sequence_keep_every_token_exact(tmp_path: Path) -> None:
    """O20: after a swap the KV is computed anew, so a token's log-prob is that of its own version alone."""
    spec = job_spec()
    models = {version: model_of(spec, version + 1) for version in range(4)}
    engine = await running_engine(spec, tmp_path, models[0])
    halts = Halts(engine, 9, 20, 31)
    tasks = [asyncio.create_task(continued(engine, f"s{i}", 50 + i)) for i in range(6)]
    for version in (1, 2, 3):
        await halts.reached()
        await swap(engine, tmp_path, models[version], version)
    results = await asyncio.gather(*tasks)
    await engine.close()
    assert any({span.version for span in spans} == {0, 1, 2, 3} for _, _, spans in results)
    for ids, logprobs, spans in results:
        assert [span.start for span in spans] == [1, *(span.end for span in spans[:-1])]
        assert spans[-1].end == len(ids) == SEQUENCE + 1
        versions = [span.version for span in spans]
        assert versions == sorted(versions)
        assert largest_error(models, ids, logprobs, spans) < 1e-9


async def test_kv_kept_across_a_swap_is_not_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O20, the documented negative: without dropping KV the same run is off, so the test above can fail."""
    spec = job_spec()
    models = {version: model_of(spec, version + 1) for version in range(2)}
    engine = await running_engine(spec, tmp_path, models[0])
    first = await engine.generate(request([1], 20, session="a", seed=3))
    monkeypatch.setattr(engine._table, "drop_kv", lambda: None)
    await swap(engine, tmp_path, models[1], 1)
    ids = [1, *first.token_ids]
    second = await engine.generate(request(ids, 10, session="a", seed=4))
    await engine.close()
    spans = [Span(1, "", len(ids), len(ids) + 10)]
    error = largest_error(models, ids + second.token_ids, [*first.logprobs, *second.logprobs], spans)
    assert error > 1e-3


async def test_a_pause_gives_back_what_there_is_and_samples_nothing_until_resume(tmp_path: Path) -> None:
    spec = job_spec()
    model = model_of(spec, 1)
    engine = await running_engine(spec, tmp_path, model)
    halts = Halts(engine, 12)
    tasks = [asyncio.create_task(engine.generate(request([1], 47, session=f"s{i}", seed=i))) for i in range(8)]
    await halts.reached()
    await engine.pause()
    assert engine.running == 0
    results: list[GenerateResult] = [task.result() for task in tasks]
    assert {result.finish_reason for result in results} == {"interrupted"}
    assert max(len(result.token_ids) for result in results) >= 6
    for result in results:
        assert [(span.start, span.end) for span in result.spans] == (
            [(0, len(result.token_ids))] if result.token_ids else []
        )
        exact = brute_force(model, [1, *result.token_ids])
        assert max((abs(a - b) for a, b in zip(exact, result.logprobs, strict=True)), default=0.0) < 1e-9
    known = engine._table.known.copy()
    late = asyncio.create_task(engine.generate(request([1, 2], 3, session="late")))
    assert await engine.prompt_logprobs([1, 5, 6]) == pytest.approx(brute_force(model, [1, 5, 6]), abs=1e-9)
    assert not late.done()
    assert (engine._table.known == known).all()
    await engine.resume()
    assert len((await late).token_ids) == 3
    await engine.close()


async def test_interruptions_under_unchanged_weights_do_not_change_what_is_sampled(tmp_path: Path) -> None:
    spec = job_spec()
    model = model_of(spec, 1)
    engine = await running_engine(spec, tmp_path, model)
    undisturbed = await continued(engine, "a", 9)
    halts = Halts(engine, *range(3, 33, 3))
    task = asyncio.create_task(continued(engine, "b", 9))
    for _ in range(10):
        await halts.reached()
        await engine.pause()
        await engine.resume()
    disturbed = await task
    await engine.close()
    assert len(disturbed[2]) == 11
    assert disturbed[0] == undisturbed[0]
    assert disturbed[1] == pytest.approx(undisturbed[1], abs=1e-9)


@given(
    script=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["pause", "swap"])), max_size=6),
    count=st.integers(1, 5),
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_schedule_of_pauses_and_swaps_leaves_every_token_exact(
    tmp_path: Path, script: list[tuple[int, str]], count: int
) -> None:
    asyncio.run(any_schedule(tmp_path, script, count))


@lru_cache
def made(version: int) -> torch.nn.Module:
    """The version's model, made once for all examples."""
    return model_of(job_spec(), version + 1)


async def any_schedule(tmp_path: Path, script: list[tuple[int, str]], count: int) -> None:
    spec = job_spec()
    models = {0: made(0)}
    engine = await running_engine(spec, tmp_path, models[0])
    tasks = [asyncio.create_task(continued(engine, f"s{i}", i)) for i in range(count)]
    for wait, what in script:
        for _ in range(wait):
            await asyncio.sleep(0)
        if what == "swap":
            version = len(models)
            models[version] = made(version)
            await swap(engine, tmp_path, models[version], version)
        else:
            await engine.pause()
            assert engine.running == 0
            await engine.resume()
    for ids, logprobs, spans in await asyncio.gather(*tasks):
        assert len(ids) == SEQUENCE + 1
        assert len(logprobs) == SEQUENCE
        covered = [position for span in spans for position in range(span.start, span.end)]
        assert covered == list(range(1, SEQUENCE + 1))
        assert largest_error(models, ids, logprobs, spans) < 1e-9
    await engine.close()


async def test_load_is_refused_while_running_and_resume_before_the_first_load(tmp_path: Path) -> None:
    spec = job_spec()
    engine = TorchEngine(spec)
    await engine.start()
    assert engine.version == -1
    with pytest.raises(EngineError, match="no weights"):
        await engine.resume()
    await engine.load(*write_version(tmp_path, model_of(spec, 1), 0))
    await engine.resume()
    with pytest.raises(EngineError, match="not paused"):
        await engine.load(*write_version(tmp_path, model_of(spec, 2), 1))
    await engine.close()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbled_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)


def another_shape(path: Path) -> None:
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, path)


def another_dtype(path: Path) -> None:
    save_file({name: tensor.float() for name, tensor in load_file(path).items()}, path)


def missing_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, path)


def unknown_tensor(path: Path) -> None:
    save_file(load_file(path) | {"model.extra": torch.zeros(1)}, path)


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "damage",
    [truncated, garbled_header, another_shape, another_dtype, missing_tensor, unknown_tensor, one_bit, Path.unlink],
)
async def test_a_bad_file_is_refused_whole_and_the_old_version_serves_on(tmp_path: Path, damage: object) -> None:
    spec = job_spec()
    model = model_of(spec, 1)
    engine = await running_engine(spec, tmp_path, model)
    path, record = write_version(tmp_path, model_of(spec, 2), 1)
    damage(path)  # type: ignore[operator]
    await engine.pause()
    with pytest.raises(WeightsRejectedError):
        await engine.load(path, record)
    assert engine.version == 0
    await engine.resume()
    result = await engine.generate(request([1, 5], 10))
    await engine.close()
    assert result.spans[0].version == 0
    exact = brute_force(model, [1, 5, *result.token_ids])[1:]
    assert max(abs(a - b) for a, b in zip(exact, result.logprobs, strict=True)) < 1e-9


async def test_the_hash_is_of_what_is_live(tmp_path: Path) -> None:
    from asyncppo_runtime.policy import policy_tensors
    from asyncppo_runtime.weights.hashing import tensors_hash

    spec = job_spec()
    model = model_of(spec, 1)
    engine = await running_engine(spec, tmp_path, model)
    result = await engine.generate(request([1], 2))
    assert (
        result.spans[0].weights_hash
        == tensors_hash(policy_tensors(model))
        == tensors_hash(policy_tensors(engine._model))
    )
    await engine.close()


async def test_tied_weights_load_under_either_convention(tmp_path: Path) -> None:
    from tests.unit.rollout.test_torch_engine import SMALL, save_folder
    from transformers import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

    from asyncppo_runtime.policy import policy_tensors
    from asyncppo_runtime.weights.hashing import tensors_hash

    def tied(seed: int) -> Qwen2ForCausalLM:
        torch.manual_seed(seed)
        config = Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True)
        return Qwen2ForCausalLM(config).double().eval()

    save_folder(tied(0), tmp_path / "model")
    spec = job_spec(model={"pretrained": str(tmp_path / "model")})
    first, second = tied(1), tied(2)
    assert "lm_head.weight" not in policy_tensors(first)
    engine = await running_engine(spec, tmp_path, first)
    await engine.pause()
    path, record = write_version(tmp_path, second, 1)
    doubled = {name: tensor.clone() for name, tensor in load_file(path).items()}
    doubled["lm_head.weight"] = doubled["model.embed_tokens.weight"].clone()
    save_file(doubled, path)
    record = type(record)(
        **{f: getattr(record, f) for f in record.__struct_fields__} | {"published_hash": tensors_hash(doubled)}
    )
    await engine.load(path, record)
    await engine.resume()
    result = await engine.generate(request([1, 5], 10))
    exact = brute_force(second, [1, 5, *result.token_ids])[1:]
    assert max(abs(a - b) for a, b in zip(exact, result.logprobs, strict=True)) < 1e-9
    await engine.pause()
    doubled["lm_head.weight"][0, 0] += 1
    save_file(doubled, path)
    with pytest.raises(WeightsRejectedError, match="tied"):
        await engine.load(path, record)
    await engine.close()
