"""How fast the parts of a job are: assumed from the devices that the manifest names, or measured (`asyncppo_runtime.calibrate`).

Owns the assumed figures and the file of measured ones. Does not own what follows from them (`costs.py`).
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from asyncppo.errors import UserError
from asyncppo.estimate.workload import Workload
from asyncppo.report.measures import Measure


@dataclass(frozen=True)
class Device:
    """flops: sustained floating-point operations per second. memory, copy, disk, network: bytes per second.

    memory: reading weights while decoding. copy: a version kept in or taken from main memory. network: out of the learner.
    """

    flops: float
    memory: float
    copy: float
    disk: float
    network: float


CPU = Device(flops=2e10, memory=1e10, copy=3e9, disk=3e8, network=5e8)
"""One core of a small server."""
ACCELERATOR = Device(flops=4e14, memory=2e12, copy=2e10, disk=1e9, network=1.25e9)
"""One data-centre GPU at 40 % of its peak in bfloat16, NVMe, ten-gigabit Ethernet."""
PAUSE_SECONDS = 0.02


class Speeds(Measure, frozen=True, kw_only=True):
    """Tokens and bytes per second. forward: scoring on the learner. worker: on one
    old-logit worker. train: forward and backward. decode: of one rollout, all its
    episodes together. prefill: of one rollout. copy, disk: of a version's bytes. pull: out of the learner, all rollouts together.

    pause: seconds until sampling stands still. step: of one optimizer step. origin: where they come from.
    """

    forward: float
    worker: float
    train: float
    decode: float
    prefill: float
    copy: float
    disk: float
    pull: float
    pause: float = PAUSE_SECONDS
    step: float = 0.0
    origin: str = "assumed"


def assumed(load: Workload) -> Speeds:
    """From the devices the manifest asks for: 2 x active parameters operations per token forward, 6 with backward; decoding reads the
    weights once per step of all episodes, and can be no faster than their arithmetic. A step moves 20 bytes per parameter."""
    device, count = _device(load.accelerators)
    engine, engines = _device(load.engine_accelerators)
    scorer, scorers = _device(load.worker_accelerators)
    flops, engine_flops = device.flops * count, engine.flops * engines
    prefill = engine_flops / (2 * load.active)
    reads = engine.memory * engines / (load.parameters * load.engine_bytes)
    return Speeds(
        forward=flops / (2 * load.active),
        worker=scorer.flops * scorers / (2 * load.active),
        train=flops / (6 * load.active),
        decode=min(prefill, load.concurrency * reads),
        prefill=prefill,
        copy=device.copy,
        disk=device.disk,
        pull=device.network,
        step=20 * load.parameters / (device.memory * count),
        origin=f"assumed for {_named(load.accelerators)} in the learner and {_named(load.engine_accelerators)} in each rollout",
    )


def read_speeds(path: Path) -> Speeds:
    """Measured figures from a file. Raises UserError."""
    try:
        speeds = msgspec.json.decode(path.read_bytes(), type=Speeds)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); make it with --calibrate --speeds {path}"
        ) from error
    except msgspec.DecodeError as error:
        raise UserError(
            f"{path}: is not a file of speeds ({error}); make it with --calibrate --speeds {path}"
        ) from error
    for name in ("forward", "worker", "train", "decode", "prefill", "copy", "disk", "pull"):
        if not getattr(speeds, name) > 0:
            raise UserError(f"{path}: {name} must be above 0, found {getattr(speeds, name)}")
    return speeds


def _device(accelerators: int) -> tuple[Device, int]:
    return (ACCELERATOR, accelerators) if accelerators else (CPU, 1)


def _named(accelerators: int) -> str:
    return f"{accelerators} GPU{'s' * (accelerators != 1)}" if accelerators else "one CPU core"
