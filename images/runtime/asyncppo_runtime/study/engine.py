"""The torch engine in lock step: a forward runs only when every episode has either asked or used up what it may sample.

Owns that rule, which makes batches (and so every rounding) a function of the schedule and not of threads. Model, cache, forward,
sampling and loading are the torch engine's own. Does not own the allowances (`schedule.py`) nor the episodes.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.policy import build_architecture, torch_dtype
from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateRequest, GenerateResult, Span
from asyncppo_runtime.rollout.engines.torch_cache import SlotCache
from asyncppo_runtime.rollout.engines.torch_fitness import check_attention, check_forward, slot_count
from asyncppo_runtime.rollout.engines.torch_forward import last_logits, sample
from asyncppo_runtime.rollout.engines.torch_slots import SlotTable
from asyncppo_runtime.rollout.engines.torch_weights import load_weights

Asked = tuple[GenerateRequest, int, "asyncio.Future[GenerateResult]"]


class LockstepEngine:
    """What `Agent` asks of an engine (`generate`, `forget`), and the driver's `load`, `allow` and `play`."""

    def __init__(self, spec: AsyncPPOJobSpec) -> None:
        with torch.no_grad():
            self._model = build_architecture(spec, torch_dtype(spec.rollout.engine.precision))
            check_attention(self._model.config, spec.sampling.context_length)
            slots = slot_count(self._model, spec)
            layers = self._model.config.get_text_config().num_hidden_layers
            self._cache = SlotCache(layers, slots, spec.sampling.context_length)
            self._table = SlotTable(slots, spec.sampling.context_length)
            check_forward(self._model, self._cache, self._table)
        self._version, self._hash = -1, ""
        self._allowances: dict[str, int | None] = {}
        self._next_version = asyncio.Event()
        self._changed = asyncio.Event()
        self._asked: dict[str, Asked] = {}
        self._parked: set[str] = set()

    def load(self, weights: Path, record: VersionRecord) -> None:
        """The next version; drops all KV. Raises WeightsRejectedError."""
        self._hash = load_weights(self._model, weights, record)
        self._table.drop_kv()
        self._version = record.version

    def allow(self, allowances: Mapping[str, int | None]) -> None:
        """Tokens each living episode (by session) may sample under the version just loaded; None: as many as it wants."""
        self._allowances = dict(allowances)
        self._parked.clear()
        self._next_version.set()
        self._next_version = asyncio.Event()

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """As `Engine.generate`; a request that uses up its allowance ends as `interrupted`, as if a pause had come."""
        if request.top_p != 1.0:
            raise EngineError("spec.sampling.topP: the Torch engine samples from the whole distribution; use 1")
        while (allowance := self._allowances[request.session]) == 0:
            self._parked.add(request.session)
            self._changed.set()
            await self._next_version.wait()
        most = request.max_tokens if allowance is None else min(request.max_tokens, allowance)
        future: asyncio.Future[GenerateResult] = asyncio.get_running_loop().create_future()
        self._asked[request.session] = (request, most, future)
        self._changed.set()
        return await future

    def forget(self, session: str) -> None:
        """The episode is over."""
        self._table.forget(session)
        self._allowances.pop(session, None)
        self._changed.set()

    async def play(self) -> None:
        """Until every episode that is not over has used up its allowance."""
        while True:
            while len(self._asked) + len(self._parked) < len(self._allowances):
                self._changed.clear()
                await self._changed.wait()
            if not self._asked:
                return
            self._wave()

    def _wave(self) -> None:
        """Answer all that is asked, in the order of the sessions' names."""
        asked = [self._asked[session] for session in sorted(self._asked)]
        self._asked.clear()
        with torch.inference_mode():
            for first in range(0, len(asked), self._table.slots):
                self._answer(asked[first : first + self._table.slots])

    def _answer(self, asked: list[Asked]) -> None:
        table = self._table
        stopped: dict[int, bool] = {}
        slots: list[int] = []
        for request, most, _ in asked:
            slot = table.admit(msgspec.structs.replace(request, max_tokens=most))
            assert (
                slot is not None
            )  # a wave has at most as many requests as there are slots, and none is active before it
            slots.append(slot)
        while table.active.any():
            for group in table.plan():
                logits = last_logits(self._model, self._cache, table, group)
                ready = table.fed(group)
                chosen = group.slots[ready]
                if not chosen.size:
                    continue
                tokens, logprobs = sample(
                    logits[torch.from_numpy(ready)], table.temperature[chosen], table.uniforms(chosen)
                )
                stopped |= {end.slot: end.stopped for end in table.sampled(chosen, tokens, logprobs)}
        for slot, (request, most, future) in zip(slots, asked, strict=True):
            token_ids, behavior = table.output(slot)
            allowance = self._allowances[request.session]
            if allowance is not None:
                self._allowances[request.session] = allowance - len(token_ids)
            cut = not stopped[slot] and most < request.max_tokens and len(token_ids) == most
            spans = [Span(self._version, self._hash, 0, len(token_ids))]
            reason: Literal["stop", "length", "interrupted"] = "interrupted" if cut else "length"
            if stopped[slot]:
                reason = "stop"
            future.set_result(GenerateResult(token_ids, behavior, spans, reason))
