"""Specs, versions and reference log-probs for engine tests. Owns building them; asserts nothing."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import Precision
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.policy import build_model, policy_tensors, torch_dtype
from asyncppo_runtime.rollout.engines.interface import GenerateRequest, GenerateResult
from asyncppo_runtime.weights.cast import published_form
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore

CONTEXT = 192


def make_spec(engine: dict[str, Any], model: dict[str, Any] | None = None, context: int = CONTEXT) -> AsyncPPOJobSpec:
    """A job's spec with this engine; by default the built-in model with heads of 32, which every engine can run."""
    return AsyncPPOJobSpec.model_validate(
        {
            "model": model or {"builtin": {"hiddenSize": 64, "layers": 2, "heads": 2, "intermediateSize": 128}},
            "environment": {"type": "GuessNumber"},
            "sampling": {"contextLength": context, "maxTokens": 64},
            "algorithm": {"updates": 1},
            "oldLogits": {"strategy": "Recompute"},
            "rollout": {"concurrency": 32, "engine": {"kvCacheBytes": 1 << 24, **engine}},
        }
    )


@dataclass(frozen=True)
class Version:
    """A published version: its file, its record, and the train-side module (fp32) it was made of."""

    path: Path
    record: VersionRecord
    model: PreTrainedModel


def publish(spec: AsyncPPOJobSpec, folder: Path, version: int, model: PreTrainedModel | None = None) -> Version:
    """Write version `version` of the job's model; without `model`, random weights drawn from the version's number."""
    model = model or build_model(spec, seed=1000 + version, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)  # random initial weights give almost uniform logits; these tell versions apart
    precision: Precision = spec.rollout.engine.precision
    tensors = published_form(policy_tensors(model), precision)
    stored = WeightStore(folder).publish(version, tensors)
    record = VersionRecord(
        version=version,
        parent=version - 1,
        lineage=0,
        train_hash=tensors_hash(policy_tensors(model)),
        published_hash=tensors_hash(tensors),
        file_size=stored.size,
        file_sha256=stored.sha256,
    )
    return Version(stored.path, record, model.to(torch_dtype(precision)))


def logprobs_of(model: PreTrainedModel, token_ids: list[int], temperature: float = 1.0) -> list[float]:
    """Log-probs of token_ids[1:], one plain transformers forward, normalised in fp64."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0, :-1].double() / temperature
    return torch.log_softmax(logits, -1)[torch.arange(len(token_ids) - 1), token_ids[1:]].tolist()  # type: ignore[no-any-return]


def errors(
    versions: dict[int, Version], prompt: list[int], result: GenerateResult, temperature: float = 1.0
) -> list[float]:
    """Engine minus reference, per token, each token under the version it is tagged with; the hash of the tag is checked too."""
    everything = prompt + result.token_ids
    found = [math.inf] * len(result.token_ids)
    for span in result.spans:
        version = versions[span.version]
        assert span.weights_hash == version.record.published_hash
        reference = logprobs_of(version.model, everything, temperature)[len(prompt) - 1 :]
        for index in range(span.start, span.end):
            found[index] = result.logprobs[index] - reference[index]
    return found


def request(token_ids: list[int], most: int = 32, stops: list[int] | None = None, **more: Any) -> GenerateRequest:
    """A request of a session of its own."""
    name = more.pop("session", "s-" + "-".join(map(str, token_ids[:8])))
    return GenerateRequest(session=name, token_ids=token_ids, max_tokens=most, stop_token_ids=stops or [], **more)


def prompt_of(number: int, length: int = 8, vocabulary: int = 20) -> list[int]:
    """A prompt that no other number below 17^3 gives; ids 3 and up."""
    most = vocabulary - 3
    return [
        3 + (number // most**place) % most if place < 3 else 3 + (number * 7 + place * 5) % most
        for place in range(length)
    ]
