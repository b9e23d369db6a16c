"""Weights by broadcast: its order and staging anywhere, the real thing where two GPUs are."""

import asyncio
import queue
import socket
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.engine_contract.builders import errors, make_spec, prompt_of, publish, request
from tests.vllm.models import tied_qwen2

from asyncppo_runtime.rollout.engines.interface import WeightsRejectedError
from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine
from asyncppo_runtime.rollout.engines.vllm_nccl import NcclSender, announced, received
from asyncppo_runtime.rollout.engines.vllm_worker import WeightsExtension, WrongHashError
from asyncppo_runtime.weights.hashing import tensors_hash


class Wire:
    """A group of two in one process: rank 0 puts, rank 1 takes."""

    def __init__(self) -> None:
        self._queue: queue.Queue[torch.Tensor] = queue.Queue()
        self._sender = threading.get_ident()

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        assert src == 0
        if threading.get_ident() == self._sender:
            self._queue.put(tensor.clone())
        else:
            tensor.copy_(self._queue.get(timeout=30))


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a.bias": torch.ones(4, dtype=torch.bfloat16),
        "a.steps": torch.tensor(7),
    }


def test_both_ends_send_in_the_order_of_names() -> None:
    wire, sent = Wire(), _tensors()
    found: list[dict[str, torch.Tensor]] = []
    parts = announced(dict(reversed(sent.items())))
    worker = threading.Thread(target=lambda: found.append(received(wire, parts, torch.device("cpu"))))
    worker.start()
    for name, _, _ in announced(sent):
        wire.broadcast(sent[name], src=0)
    worker.join(30)
    assert tensors_hash(found[0]) == tensors_hash(sent)


def test_what_is_received_is_staged_only_when_its_hash_is_the_versions() -> None:
    worker, tensors = WeightsExtension(), _tensors()
    assert worker.asyncppo_put(tensors, tensors_hash(tensors)) == tensors_hash(tensors)
    worker.asyncppo_discard()
    with pytest.raises(WrongHashError):
        worker.asyncppo_put(tensors, "0" * 64)
    with pytest.raises(RuntimeError, match="commit without stage"):
        worker.asyncppo_commit()
    with pytest.raises(RuntimeError, match="receive without join"):
        worker.asyncppo_receive(announced(tensors), tensors_hash(tensors))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs 2 GPUs: the learner's and the rollout's")
async def test_a_version_arrives_by_nccl(tmp_path: Path) -> None:
    spec = make_spec({"type": "VLLM"}, tied_qwen2(tmp_path / "model"))
    versions = {number: publish(spec, tmp_path, number) for number in range(2)}
    engine = VllmEngine(spec)
    await engine.start()
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torch.cuda.set_device(1)
        sender, _ = await asyncio.gather(
            asyncio.to_thread(NcclSender, "127.0.0.1", port, 2), engine.join("127.0.0.1", port, 1, 2)
        )
        for version in versions.values():
            tensors = {name: tensor.cuda() for name, tensor in load_file(version.path).items()}
            await engine.pause()
            await asyncio.gather(asyncio.to_thread(sender.send, tensors), engine.receive(version.record))
            await engine.resume()
            result = await engine.generate(request(prompt_of(1), 32))
            assert max(map(abs, errors(versions, prompt_of(1), result))) < 1e-4
        await engine.pause()
        with pytest.raises(WeightsRejectedError):
            await asyncio.gather(asyncio.to_thread(sender.send, tensors), engine.receive(versions[0].record))
        sender.close()
    finally:
        await engine.close()
