"""The torch engine samples from the model it was given, exactly: against plain forwards, in any batch, on any architecture.

Tolerances: fp64 1e-9 (kernels add in other orders, nothing else). fp32: FLOOR_MULTIPLE times the largest difference that two plain
forwards of the same sequence show, batched with padding against alone: the numeric floor of this model on this machine.
"""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.rollout.builders import brute_force, job_spec, model_of, request, running_engine, write_version
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateResult
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.rollout.engines.torch_fitness import check_attention
from asyncppo_runtime.rollout.engines.torch_forward import sample

FLOOR_MULTIPLE = 20


def prompts(count: int, longest: int, vocabulary: int = 20) -> list[list[int]]:
    """Prompts of mixed lengths."""
    random = np.random.default_rng(7)
    return [random.integers(0, vocabulary, random.integers(1, longest)).tolist() for _ in range(count)]


async def answers(
    engine: TorchEngine, contexts: list[list[int]], max_tokens: int = 8, **more: Any
) -> list[GenerateResult]:
    """All at once, each its own session."""
    return await asyncio.gather(
        *(
            engine.generate(request(ids, max_tokens, session=f"s{i}", seed=1000 * i, **more))
            for i, ids in enumerate(contexts)
        )
    )


def worst(
    model: torch.nn.Module, contexts: list[list[int]], results: list[GenerateResult], temperature: float = 1.0
) -> float:
    """Largest difference between the engine's log-probs and plain forwards."""
    return max(
        abs(a - b)
        for ids, result in zip(contexts, results, strict=True)
        for a, b in zip(
            brute_force(model, ids + result.token_ids, temperature)[len(ids) - 1 :], result.logprobs, strict=True
        )
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
async def test_log_probs_are_those_of_a_plain_forward(tmp_path: Path, temperature: float) -> None:
    spec = job_spec()
    model = model_of(spec, 1)
    engine = await running_engine(spec, tmp_path, model)
    contexts = prompts(20, 30)
    results = await answers(engine, contexts, temperature=temperature)
    await engine.close()
    assert all(len(result.token_ids) == 8 for result in results)
    assert worst(model, contexts, results, temperature) < 1e-9


async def test_float32_stays_within_a_multiple_of_the_numeric_floor(tmp_path: Path) -> None:
    spec = job_spec(rollout={"concurrency": 8})
    model = model_of(spec, 1, scale=2.0)
    engine = await running_engine(spec, tmp_path, model)
    contexts = prompts(20, 30)
    results = await answers(engine, contexts)
    await engine.close()
    whole = [ids + result.token_ids for ids, result in zip(contexts, results, strict=True)]
    assert worst(model, contexts, results) <= FLOOR_MULTIPLE * numeric_floor(model, whole)


async def test_bfloat16_is_near_and_unbiased_and_its_log_probs_are_of_what_it_sampled_from(tmp_path: Path) -> None:
    spec = job_spec(rollout={"concurrency": 8, "engine": {"precision": "BFloat16"}})
    model = model_of(spec, 1, scale=2.0)
    engine = await running_engine(spec, tmp_path, model)
    contexts = prompts(40, 30)
    results = await answers(engine, contexts)
    await engine.close()
    differences = np.array(
        [
            a - b
            for ids, result in zip(contexts, results, strict=True)
            for a, b in zip(brute_force(model, ids + result.token_ids)[len(ids) - 1 :], result.logprobs, strict=True)
        ]
    )
    assert np.abs(differences).max() < 0.1
    assert abs(differences.mean()) < 4 * differences.std() / len(differences) ** 0.5 + 1e-4


def numeric_floor(model: torch.nn.Module, sequences: list[list[int]]) -> float:
    """Largest |log-prob alone - log-prob in a padded batch| of the same plain model."""
    longest = max(map(len, sequences))
    batch = torch.tensor([ids + [0] * (longest - len(ids)) for ids in sequences])
    with torch.no_grad():
        together = torch.log_softmax(model(input_ids=batch, use_cache=False).logits.double(), dim=-1)
    floor = 0.0
    for row, ids in enumerate(sequences):
        alone = brute_force(model, ids)
        floor = max(floor, *(abs(together[row, i, token].item() - alone[i]) for i, token in enumerate(ids[1:])))
    return floor


async def test_many_turns_reuse_the_prefix_and_stay_exact(tmp_path: Path) -> None:
    spec = job_spec()
    model = model_of(spec, 1)
    engine = await running_engine(spec, tmp_path, model)

    async def episode(number: int) -> tuple[list[int], list[tuple[int, float]]]:
        ids, sampled = [1], []
        for turn in range(6):
            result = await engine.generate(request(ids, 3, session=f"e{number}", seed=number * 77 + turn))
            sampled += list(enumerate(result.logprobs, start=len(ids)))
            ids += [*result.token_ids, 4 + turn, number % 5]
        engine.forget(f"e{number}")
        return ids, sampled

    episodes = await asyncio.gather(*(episode(number) for number in range(13)))  # more than there are slots
    await engine.close()
    for ids, sampled in episodes:
        exact = brute_force(model, ids)
        assert max(abs(exact[position - 1] - logprob) for position, logprob in sampled) < 1e-9


async def test_the_same_request_gives_the_same_tokens_in_any_company(tmp_path: Path) -> None:
    spec = job_spec()
    engine = await running_engine(spec, tmp_path, model_of(spec, 1))
    contexts = prompts(12, 20)
    together = await answers(engine, contexts)
    alone = [await engine.generate(request(ids, 8, session="alone", seed=1000 * i)) for i, ids in enumerate(contexts)]
    other = await engine.generate(request(contexts[0], 8, session="alone", seed=999))
    await engine.close()
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    assert other.token_ids != together[0].token_ids


async def test_a_stop_token_ends_a_turn_and_belongs_to_it(tmp_path: Path) -> None:
    spec = job_spec()
    engine = await running_engine(spec, tmp_path, model_of(spec, 1))
    results = await answers(engine, [[1]] * 40, 30, stop_token_ids=[3, 4, 5, 6, 7])
    await engine.close()
    assert {result.finish_reason for result in results} == {"stop", "length"} or all(
        result.finish_reason == "stop" for result in results
    )
    for result in results:
        assert not {3, 4, 5, 6, 7} & set(result.token_ids[:-1])
        assert (result.token_ids[-1] in {3, 4, 5, 6, 7}) == (result.finish_reason == "stop")


def test_sampling_follows_the_distribution() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.0, 0.3, 0.2]], dtype=torch.float64)).repeat(4000, 1)
    uniforms = (np.arange(4000) + 0.5) / 4000
    tokens, logprobs = sample(logits, np.ones(4000), uniforms)
    assert np.bincount(tokens, minlength=4).tolist() == [2000, 0, 1200, 800]
    assert np.allclose(np.exp(logprobs), np.array([0.5, 0.0, 0.3, 0.2])[tokens])


def test_the_largest_uniform_never_draws_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 1.0, float("-inf")]] * 2)
    tokens, _ = sample(logits, np.ones(2), np.array([np.nextafter(1.0, 0.0), 0.0]))
    assert tokens.tolist() == [1, 0]


def test_broken_logits_are_an_error() -> None:
    with pytest.raises(EngineError, match="not finite"):
        sample(torch.full((1, 3), float("nan")), np.ones(1), np.zeros(1))


SMALL: dict[str, Any] = {
    "vocab_size": 29,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
ARCHITECTURES = {
    "grouped-query attention": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)),
    "tied embeddings and biases": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True)
    ),
    "learned positions": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=29, n_embd=32, n_layer=2, n_head=4, n_positions=64, eos_token_id=2, bos_token_id=1)
    ),
}


def save_folder(model: Any, folder: Path) -> None:
    """A model folder with a tokenizer, as `spec.model.pretrained` wants it."""
    from asyncppo_runtime.policy.symbols import symbol_tokenizer

    model.save_pretrained(folder)
    symbol_tokenizer([f"w{i}" for i in range(26)]).save_pretrained(folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_pretrained_architectures_are_exact(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    model = ARCHITECTURES[name]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    save_folder(model, tmp_path / "model")
    spec = job_spec(model={"pretrained": str(tmp_path / "model")})
    engine = await running_engine(spec, tmp_path, model)
    contexts = prompts(12, 30)
    results = await answers(engine, contexts)
    await engine.close()
    assert worst(model, contexts, results) < 1e-9


def test_sliding_windows_shorter_than_the_context_are_refused() -> None:
    with pytest.raises(EngineError, match="sliding_attention"):
        check_attention(MistralConfig(sliding_window=16), 48)
    check_attention(MistralConfig(sliding_window=48), 48)
    check_attention(LlamaConfig(), 48)


async def test_requests_that_cannot_be_answered_say_why(tmp_path: Path) -> None:
    spec = job_spec()
    engine = await running_engine(spec, tmp_path, model_of(spec, 1))
    with pytest.raises(EngineError, match="contextLength"):
        await engine.generate(request([1] * 48))
    with pytest.raises(EngineError, match="topP"):
        await engine.generate(request([1], top_p=0.9))
    with pytest.raises(EngineError, match="at least one token"):
        await engine.generate(request([]))
    full = await engine.generate(request([1] * 47, 8))
    assert full.finish_reason == "length"
    assert len(full.token_ids) == 1
    await engine.close()


async def test_more_sessions_than_slots_wait_for_each_other(tmp_path: Path) -> None:
    spec = job_spec(rollout={"concurrency": 2, "engine": {"precision": "Float64"}})
    model = model_of(spec, 1)
    engine = await running_engine(spec, tmp_path, model)
    contexts = prompts(9, 20)
    results = await answers(engine, contexts)
    assert engine.running == 0
    await engine.close()
    assert worst(model, contexts, results) < 1e-9


async def test_closing_ends_what_runs_with_an_error(tmp_path: Path) -> None:
    spec = job_spec()
    engine = await running_engine(spec, tmp_path, model_of(spec, 1))
    waiting = asyncio.gather(
        *(engine.generate(request([1], 40, session=str(i))) for i in range(8)), return_exceptions=True
    )
    await asyncio.sleep(0)
    await engine.close()
    assert all(isinstance(result, EngineError | GenerateResult) for result in await waiting)
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(request([1]))


async def test_a_cancelled_request_frees_its_slot(tmp_path: Path) -> None:
    spec = job_spec(rollout={"concurrency": 1, "engine": {"precision": "Float64"}})
    engine = await running_engine(spec, tmp_path, model_of(spec, 1))
    task = asyncio.create_task(engine.generate(request([1], 47, session="a")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    engine.forget("a")
    assert len((await engine.generate(request([1], 5, session="b"))).token_ids) == 5
    assert engine.running == 0
    await engine.close()


async def test_broken_weights_fail_requests_and_not_the_engine(tmp_path: Path) -> None:
    spec = job_spec()
    broken = model_of(spec, 1)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    engine = await running_engine(spec, tmp_path, broken)
    with pytest.raises(EngineError, match="not finite"):
        await engine.generate(request([1]))
    await engine.pause()
    await engine.load(*write_version(tmp_path, model_of(spec, 2), 1))
    await engine.resume()
    assert len((await engine.generate(request([1]))).token_ids) == 8
    await engine.close()
