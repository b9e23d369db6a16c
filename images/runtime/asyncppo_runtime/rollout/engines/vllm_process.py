"""Starting vLLM's AsyncLLM and talking to its core process without ever waiting for a dead one. Owns the process's life.

The core (scheduler, KV cache, worker) is a process of its own that AsyncLLM starts; when it dies every call here raises
EngineError. Does not own requests (`vllm_engine.py`) nor weights (`vllm_worker.py`).
"""

import asyncio
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo_runtime.rollout.engines import vllm_fitness as fitness
from asyncppo_runtime.rollout.engines.interface import EngineError, EngineLostError
from asyncppo_runtime.rollout.engines.vllm_settings import engine_arguments, environment
from asyncppo_runtime.threads import in_thread

T = TypeVar("T")

ALIVE_SECONDS = 0.5  # how often a call that waits looks whether the core is still there
REMEDY = "the rollout's log has the cause; the worker must be started anew"

log = logging.getLogger(__name__)


class VllmProcess:
    """One AsyncLLM and its core. `llm` is vLLM's own object. kv_usage: share of the KV cache in use at the core's last step."""

    def __init__(self, llm: Any, gauge: "KvGauge") -> None:
        self.llm = llm
        self._gauge = gauge
        self._closed = False

    @property
    def kv_usage(self) -> float:
        """0 to 1; the fullest replica's."""
        return max(self._gauge.shares.values(), default=0.0)

    @classmethod
    async def start(cls, spec: AsyncPPOJobSpec, model: Path) -> "VllmProcess":
        """Start vLLM for the model in folder `model`; takes seconds (imports), in a thread. Raises EngineError."""
        gauge = KvGauge()
        process = cls(await in_thread(_boot, spec, model, gauge), gauge)
        try:
            await process.call(
                process.llm.get_supported_tasks()
            )  # asked once; later requests then enter without a suspension
        except BaseException:
            await process.close()
            raise
        return process

    @property
    def dead(self) -> bool:
        """Whether the core has ended, however."""
        return self._closed or bool(self.llm.errored)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, a call to the core. Raises EngineError when the core is dead or dies meanwhile; else what `work` raises."""
        if self.dead:
            work.close()
            raise self.gone()
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=ALIVE_SECONDS)
                if not task.done() and self.dead:
                    raise self.gone()
            return task.result()
        except BaseException as error:
            task.cancel()
            if self.dead and not isinstance(error, (EngineError, asyncio.CancelledError)):
                raise self.gone() from error
            raise

    def gone(self) -> EngineLostError:
        """The error of every call from now on."""
        return EngineLostError("the engine is closed" if self._closed else f"vLLM's engine core has died; {REMEDY}")

    async def close(self) -> None:
        """End the core; every request still running raises EngineError."""
        if self._closed:
            return
        self._closed = True
        from vllm.v1.engine.exceptions import EngineDeadError

        self.llm.output_processor.propagate_error(EngineDeadError())
        llm, self.llm = self.llm, None
        if llm.output_handler is not None:
            llm.output_handler.cancel()  # else it reports the end of the core as a failure
        await in_thread(llm.shutdown)
        llm.shutdown = _nothing  # its finalizer calls it again, at a time when the interpreter may be half gone


def _nothing() -> None:
    """Done already."""


class KvGauge:
    """Stands where vLLM keeps its stat loggers; of what the core tells, the KV cache's share is kept, by replica."""

    def __init__(self) -> None:
        self.shares: dict[int, float] = {}

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> "KvGauge":
        """vLLM makes its loggers with a factory; this object is its own."""
        return self

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """After each step of a replica."""
        if scheduler_stats is not None:
            self.shares[engine_idx] = float(scheduler_stats.kv_cache_usage)

    def log_engine_initialized(self) -> None:
        """Nothing to log."""

    def log(self) -> None:
        """Nothing to log."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """This engine never sleeps."""


def _boot(spec: AsyncPPOJobSpec, model: Path, gauge: KvGauge) -> Any:
    devices = torch.cuda.device_count()
    fitness.check_devices(spec.rollout.engine.tensor_parallel, devices)
    arguments = engine_arguments(spec, model, accelerated=devices > 0)
    os.environ.update(environment(spec, accelerated=devices > 0))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise EngineError(
            f"spec.rollout.engine.type: vLLM is not installed here ({error}); run make setup-vllm, or use type Torch"
        ) from error
    try:
        config = AsyncEngineArgs(**arguments).create_engine_config()
    except (ValueError, TypeError, NotImplementedError, ImportError, OSError) as error:
        raise fitness.refusal(error) from error
    fitness.check_attention(config)
    fitness.check_memory(config, 0 if devices else fitness.free_memory())
    try:
        llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True, stat_loggers=[gauge])
    except (RuntimeError, ValueError, OSError) as error:
        raise EngineLostError(f"vLLM did not start: {error}; its own log lines above have the cause") from error
    # the core tells of itself at each step; the per-token figures vLLM would compute here besides, nobody looks at
    llm.log_stats = llm.output_processor.log_stats = False
    llm.logger_manager = gauge
    return llm
