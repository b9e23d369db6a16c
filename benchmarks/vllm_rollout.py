"""The vLLM engine against raw vLLM, in one run. Owns these measurements; asserts nothing.

    python -m benchmarks.vllm_rollout [--concurrency 64,256] [--rounds 7] [--megabytes 500] [--skip server,offline,load]

- tokens per second of AsyncLLM called directly (raw), of VllmEngine.generate, and of the worker's agent loop over it. All three use the
  very same engine core, prompts and lengths, and take turns, so that the machine's noise hits all alike.
- the same load on vLLM's own HTTP server on loopback, and on the offline LLM class: which raw mode is the fastest.
- from Pause to the first token after Resume, in its parts, with the highest concurrency in flight.
- loading a version of `--megabytes` over reading the file and copying the bytes once (`vllm_load.py`).

Raw vLLM is given its fastest settings: ids in and out, one answer at the end, flat log-probs, no tokenizer, no statistics.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import msgspec
import torch
from benchmarks.vllm_load import measure_load

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.experience import Lease, Task
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.environments.interface import Observation, Turn
from asyncppo_runtime.policy import build_model, build_tokenizer, policy_tensors
from asyncppo_runtime.rollout.agent import Agent, AgentSettings
from asyncppo_runtime.rollout.engines import vllm_requests
from asyncppo_runtime.rollout.engines.interface import GenerateRequest
from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine
from asyncppo_runtime.rollout.engines.vllm_model import describe
from asyncppo_runtime.rollout.engines.vllm_settings import engine_arguments, environment
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore

PROMPT, TOKENS = 24, 32
REQUESTS_PER_SLOT = 6
SMALL = {"hiddenSize": 64, "layers": 2, "heads": 2, "intermediateSize": 256}
Play = Callable[[int], Awaitable[object]]


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", default="64,256", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--skip", default="", help="any of server, offline, load")
    options = parser.parse_args()
    levels = [int(level) for level in options.concurrency.split(",")]
    skipped = set(options.skip.split(","))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        best = asyncio.run(engine_rates(levels, options.rounds, Path(scratch)))
        if "server" not in skipped:
            for level, rate in asyncio.run(server_rates(levels, Path(scratch))).items():
                print(
                    f"vLLM's server, {level} at once: {rate:,.0f} tokens/s, {rate / best[level]:.2f} of AsyncLLM in process"
                )
        if "offline" not in skipped:
            for level, rate in offline_rates(levels, Path(scratch)).items():
                print(
                    f"vLLM's offline LLM, {level} at once: {rate:,.0f} tokens/s, {rate / best[level]:.2f} of AsyncLLM in process"
                )
        if "load" not in skipped:
            asyncio.run(load_rates(options.megabytes, options.rounds, Path(scratch)))


def job(concurrency: int, shape: dict[str, int], context: int = 128) -> AsyncPPOJobSpec:
    """A job with the vLLM engine and a built-in model of `shape`."""
    return AsyncPPOJobSpec.model_validate(
        {
            "model": {"builtin": shape},
            "environment": {"type": "GuessNumber"},
            "sampling": {"maxTokens": TOKENS, "contextLength": context},
            "algorithm": {"updates": 1},
            "oldLogits": {"strategy": "Interruption"},
            "rollout": {"concurrency": concurrency, "engine": {"type": "VLLM", "kvCacheBytes": 1 << 27}},
        }
    )


def prompts() -> list[list[int]]:
    """The same prompts for everybody."""
    draw = random.Random(0)
    return [[draw.randrange(3, 20) for _ in range(PROMPT)] for _ in range(2048)]


async def started(spec: AsyncPPOJobSpec, scratch: Path) -> tuple[VllmEngine, Path, VersionRecord]:
    """An engine on a version with random weights, resumed."""
    tensors = policy_tensors(build_model(spec, seed=0, dtype=torch.float32))
    stored = WeightStore(scratch / "weights").publish(0, tensors)
    name = tensors_hash(tensors)
    record = VersionRecord(
        version=0,
        parent=-1,
        lineage=0,
        train_hash=name,
        published_hash=name,
        file_size=stored.size,
        file_sha256=stored.sha256,
    )
    engine = VllmEngine(spec)
    await engine.start()
    await engine.load(stored.path, record)
    await engine.resume()
    return engine, stored.path, record


class OneTurn:
    """An environment of one turn: the ids of a prompt, no reward."""

    def __init__(self, prompt: list[int]) -> None:
        self._prompt = prompt

    async def reset(self, task: Task) -> Observation:
        return Observation(token_ids=self._prompt)

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        return Turn(Observation(token_ids=[]), 0.0, done=True)

    async def close(self) -> None:
        return


def ways(spec: AsyncPPOJobSpec, engine: VllmEngine) -> dict[str, Play]:
    """What is compared: each takes the number of a prompt and samples TOKENS after it."""
    texts = prompts()
    llm = engine._process.llm if engine._process else None
    numbers = itertools.count()
    tokenizer = msgspec.structs.replace(build_tokenizer(spec), stop_token_ids=[])
    settings, gate, tally = AgentSettings.of(spec), Gate(), Tally()
    gate.open()

    def asked(index: int) -> GenerateRequest:
        return GenerateRequest(session=f"s{index}", token_ids=texts[index % 2048], max_tokens=TOKENS, stop_token_ids=[])

    async def raw(index: int) -> None:
        sampling = vllm_requests.sampling_parameters(asked(index), spec.sampling.context_length)
        prompt = {"type": "token", "prompt_token_ids": texts[index % 2048]}
        async for _ in llm.generate(prompt, sampling, f"raw-{next(numbers)}"):  # type: ignore[union-attr]
            pass

    async def worker(index: int) -> None:
        agent = Agent(settings, engine, tokenizer, lambda: OneTurn(texts[index % 2048]), gate, tally)
        lease = Lease(next(numbers), 0, 0, Task(index, index), sampling_seed=index, ttl_seconds=60.0)
        await agent.play(Episode(lease))

    return {"raw AsyncLLM": raw, "VllmEngine": lambda index: engine.generate(asked(index)), "agent loop": worker}


async def rate(play: Play, concurrency: int) -> float:
    """Tokens per second of one round."""
    indices = iter(range(concurrency * REQUESTS_PER_SLOT))

    async def slot() -> None:
        for index in indices:
            await play(index)

    begin = perf_counter()
    await asyncio.gather(*(slot() for _ in range(concurrency)))
    return concurrency * REQUESTS_PER_SLOT * TOKENS / (perf_counter() - begin)


async def engine_rates(levels: list[int], rounds: int, scratch: Path) -> dict[int, float]:
    """Print and return the rates in one engine core."""
    spec = job(max(levels), SMALL)
    engine, path, record = await started(spec, scratch)
    best: dict[int, float] = {}
    for level in levels:
        found: dict[str, list[float]] = {name: [] for name in ways(spec, engine)}
        await rate(ways(spec, engine)["raw AsyncLLM"], level)
        for number in range(rounds):
            order = list(ways(spec, engine).items())
            for name, play in order if number % 2 else order[::-1]:
                found[name].append(await rate(play, level))
        best[level] = statistics.median(found["raw AsyncLLM"])
        for name, rates in found.items():
            ratios = [ours / raw for ours, raw in zip(rates, found["raw AsyncLLM"], strict=True)]
            print(
                f"{name}, {level} at once: {statistics.median(rates):,.0f} tokens/s "
                f"[{min(rates):,.0f}..{max(rates):,.0f}], {statistics.median(ratios):.2f} of raw",
                flush=True,
            )
    await pause_latency(engine, path, record, max(levels), rounds)
    await engine.close()
    return best


async def pause_latency(engine: VllmEngine, path: Path, record: VersionRecord, level: int, rounds: int) -> None:
    """Print the parts of a sync as the engine sees it: from Pause to the first new token."""
    texts = prompts()
    parts: dict[str, list[float]] = {"pause": [], "load": [], "resume to first token": [], "pause to first token": []}
    for _ in range(rounds):
        calls = [
            asyncio.create_task(
                engine.generate(GenerateRequest(session=f"p{i}", token_ids=texts[i], max_tokens=96, stop_token_ids=[]))
            )
            for i in range(level)
        ]
        await asyncio.sleep(0.15)
        marks = [perf_counter()]
        await engine.pause()
        marks.append(perf_counter())
        await engine.load(path, record)
        marks.append(perf_counter())
        results = [call.result() for call in calls]
        await engine.resume()
        resumed = [
            asyncio.create_task(
                engine.generate(
                    GenerateRequest(
                        session=f"p{i}",
                        token_ids=texts[i] + result.token_ids,
                        max_tokens=1 if i == 0 else 4,
                        stop_token_ids=[],
                    )
                )
            )
            for i, result in enumerate(results)
        ]
        await asyncio.wait(resumed, return_when=asyncio.FIRST_COMPLETED)
        marks.append(perf_counter())
        await asyncio.gather(*resumed)
        spans = [after - before for before, after in itertools.pairwise(marks)]
        for name, seconds in zip(parts, [*spans, marks[-1] - marks[0]], strict=True):
            parts[name].append(seconds)
    for name, seconds_ in parts.items():
        print(
            f"{name}, {level} in flight: {1e3 * statistics.median(seconds_):.0f} ms "
            f"[{1e3 * min(seconds_):.0f}..{1e3 * max(seconds_):.0f}]",
            flush=True,
        )


async def load_rates(megabytes: int, rounds: int, scratch: Path) -> None:
    """Print what a load of `megabytes` takes."""
    layers = max(1, round(megabytes * 1e6 / 4 / (4 * 1024**2 + 3 * 1024 * 4096)))
    shape = {"hiddenSize": 1024, "layers": layers, "heads": 16, "intermediateSize": 4096}
    engine, path, record = await started(job(4, shape), scratch / "large")
    await measure_load(engine, path, record, rounds)
    await engine.close()


@contextlib.contextmanager
def served(spec: AsyncPPOJobSpec, scratch: Path) -> Iterator[str]:
    """vLLM's own server on loopback, with the engine's very settings."""
    folder = scratch / "served"
    folder.mkdir(exist_ok=True)
    describe(spec, folder)
    arguments = engine_arguments(spec, folder, accelerated=torch.cuda.is_available())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keep = [
        "dtype",
        "kv_cache_memory_bytes",
        "max_model_len",
        "max_num_seqs",
        "logprobs_mode",
        "generation_config",
        "load_format",
    ]
    keep += ["block_size"] if "block_size" in arguments else []
    flags = [f"--{name.replace('_', '-')}={arguments[name]}" for name in keep]
    flags += ["--enforce-eager"] if arguments.get("enforce_eager") else []
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.launchers.api_server.entry",
        f"--model={folder}",
        "--skip-tokenizer-init",
    ]
    command += [*flags, "--enable-scale-out", "--disable-uvicorn-access-log", "--disable-log-stats", f"--port={port}"]
    variables = {**os.environ, **environment(spec, accelerated=torch.cuda.is_available())}
    with (
        (scratch / "server.log").open("wb") as log,
        subprocess.Popen(command, env=variables, stdout=log, stderr=log) as server,
    ):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


async def server_rates(levels: list[int], scratch: Path) -> dict[int, float]:
    """Tokens per second through HTTP, best of three rounds."""
    texts = prompts()
    with served(job(max(levels), SMALL), scratch) as base:
        async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session:
            await _healthy(session, perf_counter() + 300)

            async def play(index: int) -> None:
                sampling = {"max_tokens": TOKENS, "logprobs": 0, "ignore_eos": True, "detokenize": False}
                body: dict[str, Any] = {"token_ids": texts[index % 2048], "stream": False, "sampling_params": sampling}
                async with session.post("/inference/v1/generate", json=body) as response:
                    response.raise_for_status()
                    await response.json()

            await play(0)
            return {level: max([await rate(play, level) for _ in range(3)]) for level in levels}


async def _healthy(session: aiohttp.ClientSession, deadline: float) -> None:
    """Wait until the server answers."""
    with contextlib.suppress(aiohttp.ClientError):
        async with session.get("/health") as response:
            response.raise_for_status()
            return
    if perf_counter() > deadline:
        raise SystemExit("vLLM's server did not come up")
    await asyncio.sleep(0.5)
    await _healthy(session, deadline)


def offline_rates(levels: list[int], scratch: Path) -> dict[int, float]:
    """Tokens per second of vLLM's batch interface, in a process of its own; best of three rounds."""
    folder = scratch / "offline"
    folder.mkdir(exist_ok=True)
    spec = job(max(levels), SMALL)
    describe(spec, folder)
    arguments = engine_arguments(spec, folder, accelerated=torch.cuda.is_available())
    for name in ("enable_log_requests", "worker_extension_cls"):
        del arguments[name]
    program = f"""
import json, sys, time
from vllm import LLM, SamplingParams
llm = LLM(**{arguments!r})
texts = json.load(sys.stdin)
sampling = SamplingParams(max_tokens={TOKENS}, logprobs=0, flat_logprobs=True, ignore_eos=True, detokenize=False)
for level in {levels!r}:
    best = 0.0
    for _ in range(4):
        begin = time.perf_counter()
        llm.generate([{{"prompt_token_ids": text}} for text in texts[:level]], sampling, use_tqdm=False)
        best = max(best, level * {TOKENS} / (time.perf_counter() - begin))
    print("RATE", level, best, flush=True)
"""
    variables = {**os.environ, **environment(spec, accelerated=torch.cuda.is_available())}
    texts = json.dumps(prompts()[: max(levels)])
    done = subprocess.run(
        [sys.executable, "-c", program], env=variables, input=texts, capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("RATE")]
    return {int(level): float(found) for _, level, found in lines}


if __name__ == "__main__":
    main()
