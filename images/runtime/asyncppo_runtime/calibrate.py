"""`python -m asyncppo_runtime.calibrate MANIFEST`: the speeds of a job's parts on this machine, as JSON, for `asyncppo estimate`.

Owns what is measured and how long. Trainer, engine, weight store and HTTP pull are the real ones, in this one process: tokens per
second are of each part by itself, not of all of them sharing a machine. Does not own what follows from the speeds (`asyncppo.estimate`).
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec
import torch
from aiohttp import web

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.manifest import load_manifest
from asyncppo.errors import UserError
from asyncppo.estimate.choice import settled
from asyncppo.estimate.speeds import Speeds
from asyncppo.wire import routes
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.old_logprobs.exact_scorer import ScoreRequest, score
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, bytes_of, own_copy
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.rollout.engines.interface import GenerateRequest
from asyncppo_runtime.study.engine import LockstepEngine
from asyncppo_runtime.weights.pull import pull
from asyncppo_runtime.weights.serve import weights_handler
from asyncppo_runtime.weights.store import WeightStore

SECONDS = 1.0  # of each measurement, at least
ROWS = 16  # sequences of one measured forward


def main(argv: list[str] | None = None) -> int:
    """Measure and print; returns the exit code: 0 done, 2 a job that cannot be measured."""
    parser = argparse.ArgumentParser("python -m asyncppo_runtime.calibrate", description="A job's speeds, as JSON.")
    parser.add_argument("manifest", type=Path)
    arguments = parser.parse_args(argv)
    try:
        job = settled(load_manifest(arguments.manifest, lenient=True))
        with tempfile.TemporaryDirectory(prefix="asyncppo-calibrate-") as directory:
            speeds = measure(job.spec, Path(directory))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(msgspec.json.encode(speeds) + b"\n")
    return 0


def measure(spec: AsyncPPOJobSpec, directory: Path, seconds: float = SECONDS) -> Speeds:
    """All speeds. seconds: of each measurement, at least. Raises UserError for a model that cannot be had."""
    trainer = Trainer(spec, directory / "strategy")
    vocabulary = trainer.model.get_input_embeddings().num_embeddings
    length = max(2, spec.sampling.context_length // 2)
    ids = torch.randint(vocabulary, (ROWS, length), generator=torch.Generator().manual_seed(spec.seed))
    tensors = policy_tensors(trainer.model)
    store = WeightStore(directory / "published")
    exported = trainer.export_version()
    stored = store.publish(0, exported.published)
    record = VersionRecord(
        version=0,
        parent=-1,
        lineage=0,
        train_hash=exported.train_hash,
        published_hash=exported.published_hash,
        file_size=stored.size,
        file_sha256=stored.sha256,
    )
    requests = [ScoreRequest(row.tolist(), [(1, length)]) for row in ids]
    settings = ForwardSettings(spec.sampling.temperature, spec.optimizer.micro_batch_tokens)
    forward = _rate(lambda: score(trainer.model, requests, settings), ROWS * length, seconds)
    train = _rate(lambda: _backward(trainer, ids), ROWS * length, seconds)
    trainer.published(0)
    step = _pace(lambda: _step(trainer), seconds)
    copy = _rate(lambda: own_copy(tensors), bytes_of(tensors), seconds)
    disk = _rate(lambda: store.publish(1, exported.published), stored.size, seconds)
    pulled = asyncio.run(_pull(store, record, directory / "pulled", seconds))
    decode, prefill = asyncio.run(_sampling(spec, stored.path, record, vocabulary, seconds))
    return Speeds(
        forward=forward,
        worker=forward,
        train=train,
        decode=decode,
        prefill=prefill,
        copy=copy,
        disk=disk,
        pull=pulled,
        step=step,
        origin=f"measured here, {torch.get_num_threads()} threads in the learner",
    )


def _backward(trainer: Trainer, ids: torch.Tensor) -> None:
    lengths = torch.full((ids.shape[0],), ids.shape[1])
    output = forward_logprobs(trainer.model, ids, lengths, with_entropy=True)
    torch.autograd.backward(output.logprobs.mean())


def _step(trainer: Trainer) -> None:
    """A step without a gradient to speak of: the time of an optimizer step does not depend on what it moves."""
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    trainer.step(0, ())
    trainer.published(0)


async def _pull(store: WeightStore, record: VersionRecord, directory: Path, seconds: float) -> float:
    async def record_of(version: int) -> VersionRecord | None:
        return record if version == record.version else None

    application = web.Application()
    application.router.add_get(routes.WEIGHTS.format(version="{version}"), weights_handler(store, record_of))
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = runner.addresses[0]
    count, began = 0, time.perf_counter()
    try:
        async with aiohttp.ClientSession() as session:
            while count == 0 or time.perf_counter() - began < seconds:
                path = await pull(session, f"http://{address[0]}:{address[1]}", record, directory)
                path.unlink()
                count += 1
        return count * record.file_size / (time.perf_counter() - began)
    finally:
        await runner.cleanup()


async def _sampling(
    spec: AsyncPPOJobSpec, weights: Path, record: VersionRecord, vocabulary: int, seconds: float
) -> tuple[float, float]:
    """(decode, prefill) in tokens per second, all episodes of a rollout at once."""
    engine = LockstepEngine(spec)
    engine.load(weights, record)
    length = max(2, spec.sampling.context_length // 2)
    most = max(1, min(length, spec.sampling.context_length - 2))
    prompt = [token % vocabulary for token in range(spec.sampling.context_length - 1)]

    async def wave(prompt_ids: list[int], tokens: int) -> int:
        sessions = [f"episode-{place}" for place in range(spec.rollout.concurrency)]
        engine.allow(dict.fromkeys(sessions))
        async with asyncio.TaskGroup() as group:
            for number, session in enumerate(sessions):
                group.create_task(
                    play(
                        GenerateRequest(
                            session=session, token_ids=prompt_ids, max_tokens=tokens, stop_token_ids=[], seed=number
                        )
                    )
                )
            await engine.play()
        return len(sessions)

    async def play(request: GenerateRequest) -> None:
        await engine.generate(request)
        engine.forget(request.session)

    async def rate(prompt_ids: list[int], tokens: int, counted: int) -> float:
        await wave(prompt_ids, tokens)
        done, began = 0, time.perf_counter()
        while done == 0 or time.perf_counter() - began < seconds:
            done += await wave(prompt_ids, tokens)
        return done * counted / (time.perf_counter() - began)

    return await rate(prompt[:1], most, most), await rate(prompt, 1, len(prompt))


def _pace(once: Callable[[], object], seconds: float) -> float:
    """Seconds of one call, after one that warms up."""
    once()
    count, began = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - began < seconds:
        once()
        count += 1
    return (time.perf_counter() - began) / count


def _rate(once: Callable[[], object], amount: float, seconds: float) -> float:
    return amount / _pace(once, seconds)


if __name__ == "__main__":
    sys.exit(main())
