"""Putting a weights file into a live module, all or nothing. Owns the checks and the swap.

Everything that can fail happens on staged copies; the swap itself only re-points parameters, and is undone when the hash of the
live parameters is not the record's. Does not own the pull (`asyncppo_runtime.weights`) nor the canary (the worker).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.policy import policy_tensors, tied_names
from asyncppo_runtime.rollout.engines.interface import WeightsRejectedError
from asyncppo_runtime.weights.hashing import tensors_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_weights(model: "PreTrainedModel", weights: Path, record: VersionRecord) -> str:
    """Make `model` compute with the file's tensors; returns the hash of the live parameters afterwards.

    Raises WeightsRejectedError (unreadable or truncated file, names, shapes, dtype, ties, hash) with the model as it was.
    """
    staged = _stage(model, weights)
    with torch.inference_mode(False), torch.no_grad():
        live = policy_tensors(model)
        before = {name: tensor.data for name, tensor in live.items()}
        names = tied_names(model)
        for name, tensor in staged.items():
            live[names[name]].data = tensor
        found = tensors_hash({name: live[names[name]] for name in staged})
        if found != record.published_hash:
            for name, tensor in before.items():
                live[name].data = tensor
            raise WeightsRejectedError(
                f"{weights.name}: the weights hash to {found[:12]}, version {record.version} is {record.published_hash[:12]}; "
                "the file is not this version's"
            )
    return found


def _stage(model: "PreTrainedModel", weights: Path) -> dict[str, torch.Tensor]:
    live = policy_tensors(model)
    names = tied_names(model)
    staged: dict[str, torch.Tensor] = {}
    try:
        with torch.inference_mode(False), safe_open(weights, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file, not a dict
                if name not in names:
                    raise WeightsRejectedError(
                        f"{weights.name}: {name} is no tensor of this model; another job's file?"
                    )
                # the file is memory-mapped; a copy outlives its deletion
                staged[name] = file.get_tensor(name).clone()
    except (SafetensorError, OSError) as error:
        raise WeightsRejectedError(f"{weights.name} cannot be read: {error}") from error
    for name, tensor in staged.items():
        _check(weights, name, tensor, live[names[name]])
        twin = staged.get(names[name], tensor)
        if twin is not tensor and not torch.equal(twin, tensor):
            raise WeightsRejectedError(
                f"{weights.name}: {name} and {names[name]} are tied in the model but differ in the file"
            )
    missing = sorted(live.keys() - {names[name] for name in staged})
    if missing:
        raise WeightsRejectedError(f"{weights.name}: {len(missing)} tensors are missing, the first is {missing[0]}")
    return staged


def _check(weights: Path, name: str, tensor: torch.Tensor, expected: torch.Tensor) -> None:
    if tensor.shape != expected.shape:
        raise WeightsRejectedError(
            f"{weights.name}: {name} has shape {tuple(tensor.shape)}, the model {tuple(expected.shape)}"
        )
    if tensor.dtype != expected.dtype:
        raise WeightsRejectedError(
            f"{weights.name}: {name} is {tensor.dtype}, the engine computes in {expected.dtype} (spec.rollout.engine.precision)"
        )
