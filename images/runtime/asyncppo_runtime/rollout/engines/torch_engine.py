"""The torch engine: any decoder-only transformers model on the CPU, continuously batched over a slotted KV cache.

Owns the thread that computes and the hand-over between it and the asyncio loop: calls go in through a mailbox, results of a round
come back in one callback. Does not own bookkeeping (`torch_slots.py`), the forward (`torch_forward.py`), the cache
(`torch_cache.py`) nor loading (`torch_weights.py`).

A round feeds every active row once: its pending prefill chunk or its newest token. Between two forwards the thread looks at the
mailbox, so a pause waits for one forward at most.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.errors import UserError
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.policy import build_architecture, torch_dtype
from asyncppo_runtime.rollout.engines.interface import (
    EngineError,
    EngineLostError,
    GenerateRequest,
    GenerateResult,
    Span,
)
from asyncppo_runtime.rollout.engines.torch_cache import SlotCache
from asyncppo_runtime.rollout.engines.torch_fitness import check_attention, check_forward, slot_count
from asyncppo_runtime.rollout.engines.torch_forward import last_logits, sample, sequence_logprobs
from asyncppo_runtime.rollout.engines.torch_slots import Group, SlotTable
from asyncppo_runtime.rollout.engines.torch_weights import load_weights
from asyncppo_runtime.threads import in_thread

T = TypeVar("T")

SETTLE_SECONDS = 0.02  # longest wait for the agents to ask again after results were handed over

log = logging.getLogger(__name__)


class _Call:
    """One generate() on its way through the thread."""

    __slots__ = ("future", "request")

    def __init__(self, request: GenerateRequest, future: "asyncio.Future[GenerateResult]") -> None:
        self.request = request
        self.future = future


class TorchEngine:
    """See `Engine`. It starts paused, so that the first version can be loaded."""

    def __init__(self, spec: AsyncPPOJobSpec) -> None:
        self._spec = spec
        self._context = spec.sampling.context_length
        self._version = -1
        self._hash = ""
        self._paused = True
        self._resumed = asyncio.Event()
        self._running = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._settled = threading.Event()
        self._inbox: deque[_Call] = deque()
        self._commands: deque[tuple[Callable[[], Any], asyncio.Future[Any] | None]] = deque()
        # below: touched by the thread only, once it runs
        self._waiting: deque[_Call] = deque()
        self._in_slot: dict[int, _Call] = {}
        self._done: list[tuple[asyncio.Future[Any], Any]] = []

    async def start(self) -> None:
        """See `Engine.start`. Raises EngineError for a model this engine cannot run exactly, UserError for one that is not there."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="torch-engine", daemon=True)
        booted = self._command(self._boot)
        self._thread.start()
        await booted

    async def load(self, weights: Path, record: VersionRecord) -> str:
        """See `Engine.load`."""
        if not self._paused:
            raise EngineError("load: the engine is not paused")

        def load() -> str:
            found = load_weights(self._model, weights, record)
            self._table.drop_kv()
            return found

        self._hash = await self._command(load)
        self._version = record.version
        return self._hash

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """See `Engine.generate`."""
        self._check(request)
        while self._paused and not self._closed:
            await self._resumed.wait()
        if self._closed:
            raise EngineError("the engine is closed")
        call = _Call(request, self._loop.create_future())
        self._running += 1
        try:
            self._inbox.append(call)
            self._wake.set()
            return await call.future
        except asyncio.CancelledError:
            self._tell(lambda: self._abandon(call))
            raise
        finally:
            self._running -= 1

    async def prompt_logprobs(self, token_ids: list[int]) -> list[float]:
        """See `Engine.prompt_logprobs`."""
        return await self._command(lambda: sequence_logprobs(self._model, token_ids))

    async def pause(self) -> None:
        """See `Engine.pause`."""
        self._paused = True
        self._resumed.clear()
        await self._command(self._interrupt)

    async def resume(self) -> None:
        """See `Engine.resume`. Raises EngineError before the first load."""
        if self._version < 0:
            raise EngineError("resume: no weights are loaded yet")
        self._paused = False
        self._resumed.set()

    def forget(self, session: str) -> None:
        """See `Engine.forget`."""
        self._tell(lambda: self._table.forget(session))

    async def close(self) -> None:
        """See `Engine.close`."""
        if self._closed:
            return
        self._closed = True
        self._resumed.set()
        self._wake.set()
        self._settled.set()
        if self._thread is not None and self._thread.ident is not None:
            await in_thread(self._thread.join)

    async def lost(self) -> EngineLostError:
        """See `Engine.lost`: it lives in this process, so it lives as long."""
        await asyncio.Event().wait()
        raise AssertionError("an event that nobody sets")

    @property
    def version(self) -> int:
        """See `Engine.version`."""
        return self._version

    @property
    def running(self) -> int:
        """See `Engine.running`."""
        return self._running

    @property
    def kv_usage(self) -> float:
        """See `Engine.kv_usage`."""
        return self._table.tokens_cached / (self._table.slots * self._table.context) if self._version >= 0 else 0.0

    def _check(self, request: GenerateRequest) -> None:
        count = len(request.token_ids)
        if not 0 < count < self._context:
            raise EngineError(
                f"a context of {count} tokens leaves no room in spec.sampling.contextLength {self._context}"
                if count
                else "a request needs at least one token of context"
            )
        if request.max_tokens < 1:
            raise EngineError("max_tokens must be at least 1")
        if request.top_p != 1.0:
            raise EngineError("spec.sampling.topP: the Torch engine samples from the whole distribution; use 1")

    # ---- loop side of the hand-over

    def _command(self, do: Callable[[], T]) -> "asyncio.Future[T]":
        """Have the thread do something between two forwards."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(EngineError("the engine is closed"))
            return future
        self._commands.append((do, future))
        self._wake.set()
        return future

    def _tell(self, do: Callable[[], object]) -> None:
        """Like `_command`, but nobody waits for it."""
        if not self._closed:
            self._commands.append((do, None))
            self._wake.set()

    def _deliver(self, done: "list[tuple[asyncio.Future[Any], Any]]") -> None:
        for future, outcome in done:
            if future.done():
                continue  # its caller was cancelled
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        # runs after every agent woken above has had its turn: whoever wants to ask again at once has asked
        self._loop.call_soon(self._settled.set)

    # ---- the thread

    def _work(self) -> None:
        torch.set_num_threads(self._spec.rollout.engine.threads or torch.get_num_threads())
        with torch.inference_mode():
            while not self._closed:
                self._obey()
                self._admit()
                if self._in_slot:
                    self._round()
                elif not self._commands and not self._inbox:
                    self._wake.wait()
                    self._wake.clear()
        self._fail(EngineError("the engine is closed"))

    def _boot(self) -> None:
        dtype = torch_dtype(self._spec.rollout.engine.precision)
        with torch.inference_mode(False), torch.no_grad():
            self._model: PreTrainedModel = build_architecture(self._spec, dtype)
        check_attention(self._model.config, self._context)
        slots = slot_count(self._model, self._spec)
        layers = self._model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(layers, slots, self._context)
        self._table = SlotTable(slots, self._context)
        check_forward(self._model, self._cache, self._table)

    def _obey(self) -> None:
        while self._commands:
            do, future = self._commands.popleft()
            try:
                outcome: Any = do()
            except (EngineError, UserError) as error:
                outcome = error
            except Exception as error:
                log.exception("the torch engine failed at a command")
                outcome = EngineError(f"{type(error).__name__}: {error}")
            if future is not None:
                self._done.append((future, outcome))
                self._hand_over()

    def _admit(self) -> None:
        while self._inbox:
            self._waiting.append(self._inbox.popleft())
        while self._waiting:
            slot = self._table.admit(self._waiting[0].request)
            if slot is None:
                return
            self._in_slot[slot] = self._waiting.popleft()

    def _round(self) -> None:
        for group in self._table.plan():
            try:
                self._advance(group)
            except Exception as error:
                log.exception("the torch engine failed at a forward")
                self._fail(error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}"))
                return
            if self._commands or self._closed:
                break
        if self._done:
            self._settled.clear()
            self._hand_over()
            self._settled.wait(SETTLE_SECONDS)

    def _advance(self, group: Group) -> None:
        table = self._table
        logits = last_logits(self._model, self._cache, table, group)
        ready = table.fed(group)
        slots = group.slots
        if not ready.all():
            slots = slots[ready]
            if not slots.size:
                return
            logits = logits[torch.from_numpy(ready)]
        tokens, logprobs = sample(logits, table.temperature[slots], table.uniforms(slots))
        for end in table.sampled(slots, tokens, logprobs):
            call = self._in_slot.pop(end.slot)
            self._done.append((call.future, self._result(end.slot, "stop" if end.stopped else "length")))

    def _result(self, slot: int, reason: Any) -> GenerateResult:
        token_ids, logprobs = self._table.output(slot)
        spans = [Span(self._version, self._hash, 0, len(token_ids))] if token_ids else []
        return GenerateResult(token_ids, logprobs, spans, reason)

    def _interrupt(self) -> None:
        """End every call with what it has; their results are handed over before this command's own."""
        for slot, call in self._in_slot.items():
            self._table.stop(slot)
            self._done.append((call.future, self._result(slot, "interrupted")))
        self._in_slot.clear()
        for queue in (self._waiting, self._inbox):
            while queue:
                self._done.append((queue.popleft().future, GenerateResult([], [], [], "interrupted")))

    def _abandon(self, call: _Call) -> None:
        """The caller was cancelled."""
        for slot, other in list(self._in_slot.items()):
            if other is call:
                self._table.stop(slot)
                del self._in_slot[slot]
        for queue in (self._waiting, self._inbox):
            if call in queue:
                queue.remove(call)

    def _fail(self, error: EngineError) -> None:
        for slot, call in self._in_slot.items():
            self._table.stop(slot)
            self._done.append((call.future, error))
        self._in_slot.clear()
        for queue in (self._waiting, self._inbox):
            while queue:
                self._done.append((queue.popleft().future, error))
        if hasattr(self, "_table"):
            self._table.drop_kv()
        while self._closed and self._commands:
            _, future = self._commands.popleft()
            if future is not None:
                self._done.append((future, error))
        self._hand_over()

    def _hand_over(self) -> None:
        done, self._done = self._done, []
        if done and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, done)
