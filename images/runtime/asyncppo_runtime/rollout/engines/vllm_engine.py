"""The vLLM engine: real vLLM behind the engine interface. Owns the gate before vLLM's queue, pauses, version labels and loading.

A pause is vLLM's own abort: each running request ends at a token boundary and comes back with its ids, log-probs and version
spans; the acknowledgement waits until every one of them is consumed, which vLLM's own pause does not promise. Then vLLM goes on,
empty, while new calls wait here: so the canary can run before anybody samples. Every load drops the prefix cache, so no KV of one
version is ever read under another. Does not own the process (`vllm_process.py`) nor the swap (`vllm_worker.py`).
"""

import asyncio
import itertools
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.rollout.engines import vllm_requests as requests
from asyncppo_runtime.rollout.engines.interface import (
    EngineError,
    EngineLostError,
    GenerateRequest,
    GenerateResult,
    WeightsRejectedError,
)
from asyncppo_runtime.rollout.engines.vllm_model import ModelShape, check_file, describe
from asyncppo_runtime.rollout.engines.vllm_process import ALIVE_SECONDS, REMEDY, VllmProcess
from asyncppo_runtime.threads import in_thread

STRAGGLER_SECONDS = 1.0  # after a pause, when a request has still not come back, it is aborted by name

log = logging.getLogger(__name__)


class VllmEngine:
    """See `Engine`. It starts paused, so that the first version can be loaded.

    prompt_tokens, cached_tokens: totals of context tokens asked for and of those whose KV was still there.
    """

    def __init__(self, spec: AsyncPPOJobSpec) -> None:
        self._spec = spec
        self._context = spec.sampling.context_length
        self._process: VllmProcess | None = None
        self._shape: ModelShape | None = None
        self._version = -1
        self._open = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._running: dict[str, int] = {}
        self._quiet = asyncio.Lock()  # held by whoever needs the empty engine: pause, load, canary
        self._numbers = itertools.count()
        self._broken = ""
        self._closed = False
        self.prompt_tokens = 0
        self.cached_tokens = 0

    async def start(self) -> None:
        """See `Engine.start`. Raises EngineError naming the field that vLLM cannot serve, UserError for a model that is not there."""
        folder = Path(tempfile.mkdtemp(prefix="asyncppo-vllm-"))
        try:
            self._shape = await in_thread(describe, self._spec, folder)
            self._process = await VllmProcess.start(self._spec, folder)
        finally:
            await in_thread(shutil.rmtree, folder, True)

    async def load(self, weights: Path, record: VersionRecord) -> str:
        """See `Engine.load`. An EngineError that is no WeightsRejectedError means the engine is lost."""
        _, shape = self._started()
        self._check_paused()
        await in_thread(check_file, weights, shape)
        return await self._swapped("asyncppo_stage", (str(weights), record.published_hash), record, weights.name)

    async def join(self, address: str, port: int, rank_offset: int, world_size: int) -> None:
        """Join the learner's NCCL group (`vllm_nccl.NcclSender`); returns when all ranks have. Raises EngineError."""
        process, _ = self._started()
        await process.call(process.llm.collective_rpc("asyncppo_join", args=(address, port, rank_offset, world_size)))

    async def receive(self, record: VersionRecord) -> str:
        """`load` from the broadcast that the learner's NcclSender makes meanwhile, instead of from a file."""
        _, shape = self._started()
        self._check_paused()
        parts = [
            (name, str(part.dtype).removeprefix("torch."), list(part.size))
            for name, part in sorted(shape.tensors.items())
        ]
        return await self._swapped("asyncppo_receive", (parts, record.published_hash), record, "the broadcast")

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """See `Engine.generate`."""
        process, shape = self._started()
        requests.check(request, self._context, shape.vocabulary)
        while not self._open.is_set():
            await self._open.wait()
        self._started()
        number = str(next(self._numbers))
        self._running[number] = len(request.token_ids)
        self._idle.clear()
        try:
            sampling = requests.sampling_parameters(request, self._context)
            output = await self._asked(process, request.token_ids, sampling, number)
        finally:
            del self._running[number]
            if not self._running:
                self._idle.set()
        self.prompt_tokens += len(request.token_ids)
        self.cached_tokens += output.num_cached_tokens or 0
        return requests.result(output)

    async def prompt_logprobs(self, token_ids: list[int]) -> list[float]:
        """See `Engine.prompt_logprobs`; at most contextLength - 1 ids, since vLLM samples one more."""
        process, shape = self._started()
        if self._version < 0:
            raise EngineError("prompt_logprobs: no weights are loaded yet")
        if not 0 < len(token_ids) < self._context:
            raise EngineError(
                f"log-probs of {len(token_ids)} ids: vLLM takes 1 to {self._context - 1} at spec.sampling.contextLength {self._context}"
            )
        requests.check_ids(token_ids, shape.vocabulary)
        async with self._quiet:
            output = await self._asked(
                process, token_ids, requests.scoring_parameters(), f"score-{next(self._numbers)}"
            )
        return requests.prompt_scores(output, len(token_ids))

    async def pause(self) -> None:
        """See `Engine.pause`. A caller that gives up waiting leaves the pause to end by itself."""
        self._open.clear()
        process, _ = self._started()
        await asyncio.shield(asyncio.ensure_future(self._emptied(process)))

    async def resume(self) -> None:
        """See `Engine.resume`. Raises EngineError before the first load and when the core is dead."""
        self._started()
        if self._version < 0:
            raise EngineError("resume: no weights are loaded yet")
        self._open.set()

    def forget(self, session: str) -> None:
        """See `Engine.forget`: nothing to do, vLLM evicts the least recently used blocks when it needs room."""

    async def close(self) -> None:
        """See `Engine.close`."""
        if self._closed:
            return
        self._closed = True
        self._open.set()
        if self._process is not None:
            await self._process.close()

    async def lost(self) -> EngineLostError:
        """See `Engine.lost`; seen within half a second."""
        while True:
            try:
                self._started()
            except EngineLostError as error:
                return error
            await asyncio.sleep(ALIVE_SECONDS)

    @property
    def version(self) -> int:
        """See `Engine.version`."""
        return self._version

    @property
    def running(self) -> int:
        """See `Engine.running`."""
        return len(self._running)

    @property
    def kv_usage(self) -> float:
        """See `Engine.kv_usage`."""
        return self._process.kv_usage if self._process is not None else 0.0

    async def _asked(self, process: VllmProcess, token_ids: list[int], sampling: Any, number: str) -> Any:
        """One request through vLLM; the RequestOutput it ends with. From here to vLLM's queue there is no suspension."""
        prompt = {"type": "token", "prompt_token_ids": list(token_ids)}
        output = None
        try:
            async for answer in process.llm.generate(prompt, sampling, number):
                output = answer
        except Exception as error:
            if process.dead:
                raise process.gone() from None  # one error object, raised in every request: its trace says nothing
            raise EngineError(f"vLLM failed at a request: {type(error).__name__} {error}") from error
        if output is None:
            raise EngineError("vLLM ended a request without an answer; its log has the cause")
        return output

    async def _emptied(self, process: VllmProcess) -> None:
        """End all requests and wait until each has been consumed; vLLM goes on afterwards, empty."""
        async with self._quiet:
            if not self._running:
                return
            core = process.llm.engine_core
            await process.call(core.pause_scheduler_async(mode="abort", clear_cache=False))
            while self._running:
                try:
                    await asyncio.wait_for(self._idle.wait(), STRAGGLER_SECONDS)
                except TimeoutError:
                    log.warning("%d requests have not come back from a pause; ending them by name", len(self._running))
                    await process.call(process.llm.abort(list(self._running)))
            await process.call(core.resume_scheduler_async())

    async def _swapped(self, stage: str, arguments: tuple[Any, ...], record: VersionRecord, source: str) -> str:
        """Stage on every rank, then commit on every rank, drop all KV, label the tokens to come."""
        async with self._quiet:
            process, _ = self._started()
            self._check_paused()
            llm = process.llm
            try:
                await process.call(llm.collective_rpc(stage, args=arguments))
            except EngineError:
                raise
            except Exception as error:
                await process.call(llm.collective_rpc("asyncppo_discard"))
                raise WeightsRejectedError(
                    f"{source} is not version {record.version}: {error}; the version before it still serves"
                ) from error
            try:
                await process.call(llm.collective_rpc("asyncppo_commit"))
                if not await process.call(llm.reset_prefix_cache()):
                    raise RuntimeError("vLLM would not drop its prefix cache")
                await process.call(llm.update_weight_version(requests.label(record.version, record.published_hash)))
            except Exception as error:
                self._broken = f"loading version {record.version} failed half-way: {error}; {REMEDY}"
                raise EngineLostError(self._broken) from error
            self._version = record.version
        return record.published_hash

    def _check_paused(self) -> None:
        if self._open.is_set():
            raise EngineError("load: the engine is not paused")

    def _started(self) -> tuple[VllmProcess, ModelShape]:
        if self._closed:
            raise EngineLostError("the engine is closed")
        if self._process is None or self._shape is None:
            raise EngineError("the engine is not started")
        if self._broken:
            raise EngineLostError(self._broken)
        if self._process.dead:
            raise self._process.gone()
        return self._process, self._shape
