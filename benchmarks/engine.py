"""Tokens per second of the torch engine against a plain static-batch loop over transformers, in one run. Owns these two loops.

    python -m benchmarks.engine [--concurrency 32,64] [--tokens 64] [--repeats 3]

The plain loop is the best case a user would write by hand: one batch, all rows as long, a growing KV cache, sampling with log-probs,
no sessions, no stops, no pauses. Three ways through the engine are set against it: one long turn per session, turns of one token each
(every token is a request of its own), and whole GuessNumber episodes through the agent loop (which feed the model an answer for nearly
every token it samples, so twice the tokens counted). Rounds alternate between the ways, so
that noise of the machine hits all alike; the ratio is that of the medians.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import torch
from safetensors.torch import save_file
from transformers import DynamicCache, PreTrainedModel

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.experience import Lease, Task
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.environments.registry import environment_factory
from asyncppo_runtime.policy import build_model, build_tokenizer, policy_tensors
from asyncppo_runtime.rollout.agent import Agent, AgentSettings
from asyncppo_runtime.rollout.engines.interface import GenerateRequest
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.weights.hashing import tensors_hash

BOS = 1


def main() -> None:
    """Print one line per concurrency and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", default="32,64", help="comma-separated")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per session")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for concurrency in map(int, options.concurrency.split(",")):
        asyncio.run(compare(concurrency, options.tokens, options.repeats))


async def compare(concurrency: int, tokens: int, repeats: int) -> None:
    """All ways at one concurrency."""
    spec = AsyncPPOJobSpec.model_validate(
        {
            "model": {"builtin": {}},
            "environment": {"type": "GuessNumber"},
            "sampling": {"maxTokens": 1, "contextLength": 2 * tokens + 2},
            "algorithm": {"updates": 1},
            "oldLogits": {"strategy": "Interruption"},
            "rollout": {"concurrency": concurrency},
        }
    )
    model = build_model(spec, 1, torch.float32)
    engine = await serving(spec, model)
    agent = episodes_agent(spec, engine)

    async def plain() -> int:
        return await asyncio.to_thread(static_batch, model, concurrency, tokens)

    async def long_turns() -> int:
        return await sessions(engine, concurrency, tokens, tokens)

    async def single_tokens() -> int:
        return await sessions(engine, concurrency, tokens, 1)

    async def episodes() -> int:
        return await play(agent, concurrency, concurrency * tokens)

    ways: dict[str, Callable[[], Awaitable[int]]] = {
        "plain static batch": plain,
        "engine, one long turn": long_turns,
        "engine, one token a turn": single_tokens,
        "agent loop, GuessNumber": episodes,
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        await way()
    for _ in range(repeats):
        for name, way in ways.items():
            started = perf_counter()
            count = await way()
            speeds[name].append(count / (perf_counter() - started))
    await engine.close()
    base = statistics.median(speeds["plain static batch"])
    for name, values in speeds.items():
        speed = statistics.median(values)
        print(
            f"concurrency {concurrency:4d}  {name:26s} {speed:10.0f} tokens/s   ratio to plain {speed / base:.2f}",
            flush=True,
        )


def static_batch(model: PreTrainedModel, rows: int, tokens: int) -> int:
    """The plain loop."""
    ids = torch.full((rows, 1), BOS)
    cache = DynamicCache(config=model.config)
    kept: list[torch.Tensor] = []
    with torch.inference_mode():
        for _ in range(tokens):
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1].float()
            logprobs = torch.log_softmax(logits, dim=-1)
            ids = torch.multinomial(logprobs.exp(), 1)
            kept += [ids, logprobs.gather(1, ids)]
    return rows * tokens


async def serving(spec: AsyncPPOJobSpec, model: PreTrainedModel) -> TorchEngine:
    """The engine with the model's weights, running."""
    tensors = {name: tensor.detach().clone() for name, tensor in policy_tensors(model).items()}
    record = VersionRecord(
        version=0,
        parent=-1,
        lineage=0,
        train_hash="",
        published_hash=tensors_hash(tensors),
        file_size=0,
        file_sha256="",
    )
    engine = TorchEngine(spec)
    await engine.start()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file(tensors, path)
        await engine.load(path, record)
    await engine.resume()
    return engine


async def sessions(engine: TorchEngine, count: int, tokens: int, turn: int) -> int:
    """`count` sessions of `tokens` tokens each, in turns of `turn`."""

    async def session(number: int) -> None:
        ids = [BOS]
        name = str(number)
        while len(ids) <= tokens:
            request = GenerateRequest(
                session=name, token_ids=ids, max_tokens=turn, stop_token_ids=[], seed=number * 1_000_003 + len(ids)
            )
            ids = ids + (await engine.generate(request)).token_ids
        engine.forget(name)

    await asyncio.gather(*(session(number) for number in range(count)))
    return count * tokens


def episodes_agent(spec: AsyncPPOJobSpec, engine: TorchEngine) -> Agent:
    """An agent on `engine`, never paused."""
    gate = Gate()
    gate.open()
    return Agent(
        AgentSettings.of(spec), engine, build_tokenizer(spec), environment_factory(spec.environment), gate, Tally()
    )


async def play(agent: Agent, concurrency: int, tokens: int) -> int:
    """Episodes one after another in `concurrency` tasks until `tokens` are sampled."""
    sampled = number = 0

    async def player() -> None:
        nonlocal sampled, number
        while sampled < tokens:
            number += 1
            episode = Episode(Lease(number, 0, 0, Task(number, number), number, 60.0))
            await agent.play(episode)
            sampled += episode.sampled_tokens

    await asyncio.gather(*(player() for _ in range(concurrency)))
    return sampled


if __name__ == "__main__":
    main()
