"""Which tensors a policy version consists of. Owns names and ties; does not own hashing or files (`asyncppo_runtime.weights`).

Learner, scorers and engines name the same tensors: parameters, each tied one once under its first name, and persistent buffers.
"""

from collections.abc import Mapping

import torch
from torch import nn


def policy_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The live tensors of `model` by canonical name: what a version's hash and file are made of. Not copies."""
    canonical = set(tied_names(model).values())
    return {name: tensor for name, tensor in _state(model).items() if name in canonical}


def buffer_names(model: nn.Module) -> frozenset[str]:
    """Which of `policy_tensors` are no parameters: their dtype is the architecture's, whatever the policy's precision."""
    buffers = {name for name, _ in model.named_buffers()}
    return frozenset(buffers & policy_tensors(model).keys())


def tied_names(model: nn.Module) -> Mapping[str, str]:
    """Every name of the model's state → its canonical name; they differ for the second name of a tied tensor."""
    first: dict[int, str] = {id(tensor): name for name, tensor in model.named_parameters()}
    return {name: first.get(id(tensor), name) for name, tensor in _state(model).items()}


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return model.state_dict(keep_vars=True)
