"""Weights by NCCL broadcast from the learner's GPU into vLLM's workers. Owns both ends of the broadcast.

What arrives is staged like a file: hashed, then committed on every rank or on none. Both ends send tensors one by one, in the
order of their names, so nothing but the bytes travels; a sender with other tensors is caught by the hash. Rank 0 is the learner;
workers follow. For a fixed pool only: a peer that is lost in mid-broadcast leaves the others waiting, so the HTTP pull stays the
default. Does not own when a version is sent (`asyncppo.sync`).
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

Announced = list[tuple[str, str, list[int]]]


class Group(Protocol):
    """What is used of vLLM's PyNcclCommunicator."""

    def broadcast(self, tensor: torch.Tensor, src: int) -> None:
        """Fill `tensor` on every rank with rank `src`'s, on the current stream."""


def announced(tensors: Mapping[str, torch.Tensor]) -> Announced:
    """(name, dtype, shape) of each tensor in the order of the broadcast; `tensors` may be on any device, meta included."""
    return [
        (name, str(tensors[name].dtype).removeprefix("torch."), list(tensors[name].shape)) for name in sorted(tensors)
    ]


def received(group: Group, parts: Announced, device: torch.device) -> dict[str, torch.Tensor]:
    """Take part in the broadcast as a worker: new tensors on `device`."""
    return dict(_filled(group, parts, device))


def _filled(group: Group, parts: Announced, device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    for name, dtype, shape in parts:
        tensor = torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=device)
        group.broadcast(tensor, src=0)
        yield name, tensor


class NcclSender:
    """The learner's end, rank 0. Blocks until all `world_size` - 1 workers have joined; run it in a thread.

    address, port: where the ranks meet (a TCP store opens there). world_size: 1 + all workers of all rollouts.
    """

    def __init__(self, address: str, port: int, world_size: int) -> None:
        from vllm.distributed.weight_transfer.nccl_common import trainer_init

        self._group: Any = trainer_init({"master_address": address, "master_port": port, "world_size": world_size})

    def send(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Broadcast the published form of a version (on this rank's GPU); returns when the bytes have left.

        Every worker must be in `asyncppo_receive` for the same version, or come to it.
        """
        for name, _, _ in announced(tensors):
            self._group.broadcast(tensors[name].contiguous(), src=0)
        torch.cuda.current_stream().synchronize()

    def close(self) -> None:
        """Leave the group."""
        self._group.destroy()


def join(address: str, port: int, rank_offset: int, world_size: int, parallel: Any) -> Any:
    """A worker's communicator. rank_offset: rank of this replica's first worker; parallel: vLLM's ParallelConfig of it."""
    from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo, worker_init_process_group

    info = NCCLWeightTransferInitInfo(
        master_address=address, master_port=port, rank_offset=rank_offset, world_size=world_size
    )
    return worker_init_process_group(info, parallel)
