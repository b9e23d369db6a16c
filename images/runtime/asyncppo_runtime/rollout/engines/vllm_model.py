"""The policy's shape as vLLM and the weight loader need it: a folder with its configuration, and the tensors a version consists of.

Owns this description and the check of a file against it. Reads no tensor data and needs no memory for the model: it is built on
torch's meta device. Does not own loading (`vllm_worker.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo_runtime.policy import build_architecture, policy_tensors, torch_dtype
from asyncppo_runtime.rollout.engines.interface import WeightsRejectedError

SAFETENSORS_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape and dtype of one tensor."""

    size: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class ModelShape:
    """tensors: canonical name → what a version's file must hold. vocabulary: rows of the output head."""

    tensors: Mapping[str, Shape]
    vocabulary: int


def describe(spec: AsyncPPOJobSpec, folder: Path) -> ModelShape:
    """Write the configuration of the job's model to `folder` (which exists) and return its shape. Raises UserError."""
    with torch.device("meta"):
        model = build_architecture(spec, torch_dtype(spec.rollout.engine.precision))
    config = model.config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    return ModelShape(
        tensors={name: Shape(tuple(tensor.shape), tensor.dtype) for name, tensor in policy_tensors(model).items()},
        vocabulary=int(config.get_text_config().vocab_size),
    )


def check_file(weights: Path, shape: ModelShape) -> None:
    """Compare the file's header with the model. Raises WeightsRejectedError: unreadable, truncated, names, shapes, dtypes."""
    try:
        with safe_open(weights, framework="pt") as file:
            found = {}
            for name in file.keys():  # noqa: SIM118 - a safetensors file, not a dict
                part = file.get_slice(name)
                found[name] = Shape(tuple(part.get_shape()), SAFETENSORS_DTYPES.get(part.get_dtype(), torch.complex128))
    except (SafetensorError, OSError) as error:
        raise WeightsRejectedError(
            f"{weights.name} cannot be read: {error}; the version before it still serves"
        ) from error
    unknown = sorted(found.keys() - shape.tensors.keys())
    if unknown:
        raise WeightsRejectedError(f"{weights.name}: {unknown[0]} is no tensor of this model; another job's file?")
    missing = sorted(shape.tensors.keys() - found.keys())
    if missing:
        raise WeightsRejectedError(f"{weights.name}: {len(missing)} tensors are missing, the first is {missing[0]}")
    for name, expected in shape.tensors.items():
        if found[name].size != expected.size:
            raise WeightsRejectedError(
                f"{weights.name}: {name} has shape {found[name].size}, the model {expected.size}"
            )
        if found[name].dtype != expected.dtype:
            raise WeightsRejectedError(
                f"{weights.name}: {name} is {found[name].dtype}, the engine computes in {expected.dtype} "
                "(spec.rollout.engine.precision)"
            )
