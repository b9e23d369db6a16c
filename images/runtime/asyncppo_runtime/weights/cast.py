"""The published form of a policy version: the train-side tensors in the engine's precision. Pure; owns nothing else.

The cast is a function of the train-side parameters alone, so it belongs to the discrepancy between engine and trainer, not to the
version's identity.
"""

from collections.abc import Collection, Mapping

import torch

from asyncppo.api.training import Precision

DTYPES: Mapping[Precision, torch.dtype] = {
    Precision.FLOAT64: torch.float64,
    Precision.FLOAT32: torch.float32,
    Precision.BFLOAT16: torch.bfloat16,
}


def published_form(
    tensors: Mapping[str, torch.Tensor], precision: Precision, buffers: Collection[str] = ()
) -> dict[str, torch.Tensor]:
    """Copies of `tensors` on the CPU, contiguous, floating ones in `precision` (round to nearest even), others and `buffers` as they are.

    Every result owns its memory: the caller may go on training in place while these are written.
    """
    dtype = DTYPES[precision]
    return {
        name: tensor.detach().to(
            device="cpu",
            dtype=dtype if tensor.is_floating_point() and name not in buffers else tensor.dtype,
            copy=True,
            memory_format=torch.contiguous_format,
        )
        for name, tensor in tensors.items()
    }
