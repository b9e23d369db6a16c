"""Small real things for the rollout's tests: specs, models, weights files, leases, scripted environments."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.experience import Lease, Task
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.environments.interface import Observation, Turn
from asyncppo_runtime.policy import build_model, policy_tensors, torch_dtype
from asyncppo_runtime.rollout.engines.interface import GenerateRequest
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.weights.hashing import tensors_hash

SMALL = {"hiddenSize": 32, "layers": 2, "heads": 2, "intermediateSize": 48}


def job_spec(**parts: Any) -> AsyncPPOJobSpec:
    """A job of the built-in model on GuessNumber; `parts` replace top-level fields of the spec."""
    document: dict[str, Any] = {
        "model": {"builtin": SMALL},
        "environment": {"type": "GuessNumber"},
        "sampling": {"maxTokens": 4, "contextLength": 48},
        "algorithm": {"updates": 3},
        "oldLogits": {"strategy": "Interruption"},
        "rollout": {"concurrency": 8, "engine": {"precision": "Float64"}},
    }
    return AsyncPPOJobSpec.model_validate(document | parts)


def model_of(spec: AsyncPPOJobSpec, seed: int, scale: float = 8.0) -> nn.Module:
    """The job's model with weights of `seed`, scaled up so that attention and context really matter."""
    model = build_model(spec, seed, torch_dtype(spec.rollout.engine.precision))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(scale)
    return model


def write_version(directory: Path, model: nn.Module, version: int) -> tuple[Path, VersionRecord]:
    """Publish `model` as a weights file and its record."""
    tensors = {name: tensor.detach().clone() for name, tensor in policy_tensors(model).items()}
    path = directory / f"v{version}.safetensors"
    save_file(tensors, path)
    record = VersionRecord(
        version=version,
        parent=version - 1,
        lineage=0,
        train_hash="",
        published_hash=tensors_hash(tensors),
        file_size=path.stat().st_size,
        file_sha256="",
    )
    return path, record


async def running_engine(spec: AsyncPPOJobSpec, directory: Path, model: nn.Module, version: int = 0) -> TorchEngine:
    """A started engine that serves `model` as `version`."""
    engine = TorchEngine(spec)
    await engine.start()
    await engine.load(*write_version(directory, model, version))
    await engine.resume()
    return engine


def request(token_ids: Sequence[int], max_tokens: int = 8, **more: Any) -> GenerateRequest:
    """A request without stop tokens unless `more` says so."""
    fields: dict[str, Any] = {"session": "s", "stop_token_ids": []} | more
    return GenerateRequest(token_ids=list(token_ids), max_tokens=max_tokens, **fields)


def brute_force(model: nn.Module, token_ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """Log-probs of token_ids[1:] by one plain forward of the whole sequence."""
    with torch.no_grad():
        ids = torch.tensor([list(token_ids)])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        logprobs = torch.log_softmax(logits.double() / temperature, dim=-1)
    return [float(x) for x in logprobs.gather(1, ids[0, 1:, None])[:, 0]]


def lease(lease_id: int = 1, seed: int = 5) -> Lease:
    """A lease."""
    return Lease(lease_id, lease_id // 4, 0, Task(lease_id // 4, seed), seed * 1000 + lease_id, 60.0)


class Scripted:
    """An environment that answers with given turns; records what it was told. Entries that are callables are called (to raise, to wait)."""

    def __init__(self, first: Any, turns: Sequence[Any]) -> None:
        self.first = first
        self.turns = list(turns)
        self.heard: list[tuple[str, list[int]]] = []
        self.closed = False

    async def reset(self, task: Task) -> Observation:
        """The first observation."""
        return await _answer(self.first)

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """The next turn."""
        self.heard.append((action, list(token_ids)))
        return await _answer(self.turns.pop(0))

    async def close(self) -> None:
        """Remember it."""
        self.closed = True


async def _answer(entry: Any) -> Any:
    if isinstance(entry, Callable):  # type: ignore[arg-type]
        return await entry()
    return entry
