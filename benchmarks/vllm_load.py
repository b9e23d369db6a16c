"""A load of the vLLM engine over a read and a copy of the same bytes, in seconds and in CPU seconds. Owns this measurement.

CPU seconds (of the engine's process and vLLM's core together) mean the same on a busy machine; seconds do not.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine

BASES = ("read + copy", "read + copy into memory used before")


async def measure_load(engine: VllmEngine, path: Path, record: VersionRecord, rounds: int) -> None:
    """Print a load's time over a read and copy of `path`, its file; the engine is running and on this version already."""
    size = record.file_size
    clocks: dict[str, Callable[[], float]] = {"s": time.perf_counter, "CPU s": _cpu_clock()}
    loads: dict[str, list[float]] = {unit: [] for unit in clocks}
    copies: dict[str, dict[str, list[float]]] = {unit: {base: [] for base in BASES} for unit in clocks}
    for number in range(rounds + 1):
        copied = read_and_copy(path, size, clocks)
        await engine.pause()
        before = {unit: clock() for unit, clock in clocks.items()}
        await engine.load(path, record)
        loaded = {unit: clock() - before[unit] for unit, clock in clocks.items()}
        await engine.resume()
        if number:  # the first round warms the page cache
            for unit in clocks:
                loads[unit].append(loaded[unit])
                for base, seconds in zip(BASES, copied, strict=True):
                    copies[unit][base].append(seconds[unit])
    for unit, load in loads.items():
        print(f"load of {size / 1e6:.0f} MB: {statistics.median(load):.2f} {unit}")
        for base, seconds_ in copies[unit].items():
            ratios = [ours / theirs for ours, theirs in zip(load, seconds_, strict=True)]
            print(
                f"{base} of the same bytes: {statistics.median(seconds_):.2f} {unit}; the load takes "
                f"{statistics.median(ratios):.2f} times that [{min(ratios):.2f}..{max(ratios):.2f}]",
                flush=True,
            )


def read_and_copy(path: Path, size: int, clocks: dict[str, Callable[[], float]]) -> list[dict[str, float]]:
    """What each clock says of reading the file and copying its bytes once: into memory new to this process, and again."""
    source, target = torch.empty(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)
    found = []
    for _ in BASES:
        before = {unit: clock() for unit, clock in clocks.items()}
        with path.open("rb", buffering=0) as file:
            view, at = memoryview(source.numpy().data), 0
            while count := file.readinto(view[at:]):
                at += count
        target.copy_(source)
        found.append({unit: clock() - before[unit] for unit, clock in clocks.items()})
    return found


def _cpu_clock() -> Callable[[], float]:
    """CPU seconds of this process and of all it started (which must live on)."""
    children = psutil.Process().children(recursive=True)

    def clock() -> float:
        times = [child.cpu_times() for child in children]
        return time.process_time() + sum(each.user + each.system for each in times)

    return clock
