"""Weights into a live vLLM model, inside vLLM's own worker process: stage, then commit. Owns the swap and nothing else.

vLLM mixes `WeightsExtension` into its worker and calls these methods on every rank of every replica. Staging does all that can
fail and changes nothing; commit happens only when every rank has staged the same hash. So a bad file leaves the old version
serving on all of them. A commit that fails half-way leaves the model unusable: the caller then gives the engine up.
"""

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from asyncppo_runtime.rollout.engines.vllm_nccl import Announced, join, received
from asyncppo_runtime.weights.hashing import tensors_hash

MOST_THREADS = 8

log = logging.getLogger(__name__)


class WrongHashError(Exception):
    """What was read or received is not the version it was said to be."""


class WeightsExtension:
    """Mixed into vLLM's worker; `model_runner`, `model_config` and `vllm_config` are the worker's own."""

    model_runner: Any
    model_config: Any
    vllm_config: Any

    def asyncppo_stage(self, path: str, expected: str) -> str:
        """Map the file and hash its tensors: the canonical hash of the very bytes a commit loads.

        Raises WrongHashError when it is not `expected`, and what reading raises; nothing is staged then.
        """
        with safe_open(Path(path), framework="pt", device="cpu") as file:
            staged = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safetensors file, not a dict
        return self.asyncppo_put(staged, expected)

    def asyncppo_join(self, address: str, port: int, rank_offset: int, world_size: int) -> None:
        """Join the learner's NCCL group (see `vllm_nccl.py`); waits until all ranks have."""
        self.__dict__["_asyncppo_group"] = join(
            address, port, rank_offset, world_size, self.vllm_config.parallel_config
        )

    def asyncppo_receive(self, parts: Announced, expected: str) -> str:
        """Take part in the broadcast of a version and stage it. Raises WrongHashError, RuntimeError before a join."""
        group = self.__dict__.get("_asyncppo_group")
        if group is None:
            raise RuntimeError("receive without join")
        device = next(self.model_runner.get_model().parameters()).device
        return self.asyncppo_put(received(group, parts, device), expected)

    def asyncppo_put(self, staged: Mapping[str, torch.Tensor], expected: str) -> str:
        """Keep `staged` (names as in the trainer's state) until commit or discard; returns their hash. Raises WrongHashError."""
        found = tensors_hash(staged)
        if found != expected:
            raise WrongHashError(f"the weights hash to {found[:12]}, the version is {expected[:12]}")
        self.__dict__["_asyncppo_staged"] = dict(staged)
        return found

    def asyncppo_discard(self) -> None:
        """Forget what was staged."""
        self.__dict__.pop("_asyncppo_staged", None)

    def asyncppo_commit(self) -> None:
        """Make the model compute with what was staged. Raises RuntimeError when nothing was."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        staged = self.__dict__.pop("_asyncppo_staged", None)
        if staged is None:
            raise RuntimeError("commit without stage")
        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config), torch.inference_mode(False), torch.no_grad(), all_cores():
            initialize_layerwise_reload(model)
            model.load_weights(iter(staged.items()))
            finalize_layerwise_reload(model, self.model_config)
            if model_on_cpu(model):
                repack_tied(model, staged)
        if torch.cuda.is_available():
            torch.cuda.synchronize()


@contextmanager
def all_cores() -> Iterator[None]:
    """Copy and pack with every core while nothing is sampled; afterwards as many threads as before.

    vLLM's CPU worker replaces torch.set_num_threads by a warning, hence the function underneath.
    """
    before = torch.get_num_threads()
    torch._C.set_num_threads(min(len(os.sched_getaffinity(0)), MOST_THREADS))
    try:
        yield
    finally:
        torch._C.set_num_threads(before)


def model_on_cpu(model: torch.nn.Module) -> bool:
    """Whether the model computes on the CPU."""
    return next(model.parameters()).device.type == "cpu"


def repack_tied(model: torch.nn.Module, staged: Mapping[str, torch.Tensor]) -> None:
    """Pack anew the linear layers whose weight came in under another name: a tied output head on the CPU.

    vLLM's CPU build multiplies by a packed copy of each weight. A reload packs again only the layers that the checkpoint names;
    a tied head is not named, so it would go on computing with the version before, and no error would be seen.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        packed = (
            hasattr(layer, "cpu_linear") and isinstance(weight, torch.Tensor) and weight.ndim == 2 and weight.numel()
        )
        if packed and f"{name}.weight" not in staged:
            log.debug("packing %s again", name)
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)


def end_with_parent() -> None:
    """End this process as soon as the one that spawned it is gone, however that ended.

    vLLM's core would otherwise wait for requests for ever, with all its memory, when the rollout is killed.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="asyncppo-watch", daemon=True).start()


end_with_parent()  # at import: only vLLM's processes import this module, and they may be orphaned before the first call
