"""Optimizer and parameters as named tensors, and back. Owns the names; not the files (`checkpoints`)."""

from collections.abc import Mapping, Sequence

import torch

from asyncppo_runtime.learner.checkpoints import Checkpoint
from asyncppo_runtime.learner.errors import CheckpointError


def optimizer_tensors(optimizer: torch.optim.Optimizer, count: int) -> dict[str, torch.Tensor]:
    """Copies of the optimizer's state of `count` parameters: `<parameter index>.<entry>`; empty before the first step."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{entry}": torch.as_tensor(value).detach().clone()
        for index in range(count)
        for entry, value in state.get(index, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], checkpoint: Checkpoint
) -> None:
    """Put a checkpoint's optimizer state back. CheckpointError for entries of parameters this model has not."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in checkpoint.optimizer.items():
        index, _, entry = name.partition(".")
        position = int(index)
        if position >= len(parameters) or (tensor.dim() and tensor.shape != parameters[position].shape):
            raise CheckpointError(
                f"checkpoint {checkpoint.state.version} holds optimizer state of another model ({name}); "
                "resume with the manifest it was made with"
            )
        state.setdefault(position, {})[entry] = tensor
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def restore_parameters(tensors: Mapping[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's parameters into the live ones, all or none. CheckpointError names what does not fit."""
    missing = sorted(set(tensors) ^ set(checkpoint.parameters))
    wrong = sorted(
        name
        for name in set(tensors) & set(checkpoint.parameters)
        if tensors[name].shape != checkpoint.parameters[name].shape
    )
    if missing or wrong:
        raise CheckpointError(
            f"checkpoint {checkpoint.state.version} does not match the manifest's model: {(missing + wrong)[0]} differs "
            f"({len(missing)} names, {len(wrong)} shapes); resume with the manifest it was made with"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(checkpoint.parameters[name])
