"""Lending a model other weights for a moment. Owns the exchange and its undoing; does not own where the weights come from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from asyncppo_runtime.old_logprobs.errors import HeldWeightsError
from asyncppo_runtime.policy.state import policy_tensors


@contextmanager
def borrowed(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    """`model` computing with `tensors` (canonical names) while the context lasts.

    Only the storage each parameter and buffer points to is exchanged: parameter objects, their gradients and the optimizer's state
    stay as they are, and leaving the context puts the very same storage back, also after an error. Tensors are cast to the
    model's dtypes.
    No graph of the model may be alive inside (backward would see the wrong values). HeldWeightsError for names or shapes that differ.
    """
    live = policy_tensors(model)
    if live.keys() != tensors.keys():
        differing = sorted(live.keys() ^ tensors.keys())
        raise HeldWeightsError(
            f"the weights do not fit the model: {len(differing)} names differ, the first is {differing[0]}"
        )
    for name, tensor in live.items():
        if tensor.shape != tensors[name].shape:
            raise HeldWeightsError(
                f"the weights do not fit the model: {name} has shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            )
    own = {name: tensor.data for name, tensor in live.items()}
    try:
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.data = tensors[name].detach().to(device=tensor.device, dtype=tensor.dtype)
        yield model
    finally:
        for name, tensor in live.items():
            tensor.data = own[name]
