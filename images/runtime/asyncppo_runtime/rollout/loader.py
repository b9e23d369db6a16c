"""Bringing one version into the engine: pull, load, canary; on any failure the version before it serves on. Owns that order.

Does not own the pull (`asyncppo_runtime.weights`), the engine's own all-or-nothing load, nor when a version is wanted.
"""

import math
from time import perf_counter

import msgspec

from asyncppo.errors import RefusedError
from asyncppo.faults import PULLED, Moment, inside
from asyncppo.sync.reasons import Reason
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.rollout.engines.interface import Engine, EngineError, WeightsRejectedError
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.weights.errors import WeightsError, WeightsRefusedError
from asyncppo_runtime.weights.transport import WeightTransport


class LoadedWeights(msgspec.Struct, frozen=True):
    """weights_hash: computed by the engine from what it loaded. canary_error: largest |engine - trainer|, nats; 0 without a canary."""

    record: VersionRecord
    weights_hash: str
    seconds: float
    canary_error: float


class Loader:
    """The engine must be paused while `load` runs."""

    def __init__(self, engine: Engine, transport: WeightTransport, tally: Tally) -> None:
        self._engine = engine
        self._transport = transport
        self._tally = tally
        self._serving: LoadedWeights | None = None

    @property
    def weights_hash(self) -> str:
        """Hash of what is loaded; "" before the first load."""
        return self._serving.weights_hash if self._serving is not None else ""

    async def load(self, record: VersionRecord, canary: Canary | None) -> LoadedWeights:
        """Serve `record`. RefusedError 422 WeightsRejected or CanaryFailed (the bytes are wrong), 503 PullFailed (ask again)."""
        started = perf_counter()
        try:
            path = await self._transport.fetch(record)
            inside(PULLED, Moment.BEFORE, path)
            weights_hash = await self._engine.load(path, record)
            inside(PULLED, Moment.AFTER)
            error = await self._canary_error(canary)
        except (WeightsRefusedError, WeightsRejectedError) as wrong:
            self._tally.loads["rejected"] += 1
            raise RefusedError(422, Reason.WEIGHTS_REJECTED.value, f"version {record.version}: {wrong}") from wrong
        except (WeightsError, EngineError) as failed:
            self._tally.loads["failed"] += 1
            raise RefusedError(503, "PullFailed", f"version {record.version}: {failed}") from failed
        if canary is not None and error > canary.tolerance:
            self._tally.loads["rejected"] += 1
            await self._go_back()
            raise RefusedError(
                422,
                Reason.CANARY_FAILED.value,
                f"version {record.version}: the canary's log-probs are off by {error:.3g}, allowed is {canary.tolerance:.3g}",
            )
        self._tally.loads["loaded"] += 1
        self._tally.pulled_bytes += record.file_size
        self._tally.canary_error = error
        self._serving = LoadedWeights(record, weights_hash, perf_counter() - started, error)
        self._transport.keep({record.version})
        return self._serving

    async def _canary_error(self, canary: Canary | None) -> float:
        if canary is None:
            return 0.0
        logprobs = await self._engine.prompt_logprobs(canary.token_ids)
        if len(logprobs) != len(canary.logprobs):
            return math.inf
        errors = [abs(a - b) for a, b in zip(logprobs, canary.logprobs, strict=True)]
        return math.inf if any(math.isnan(error) for error in errors) else max(errors, default=0.0)

    async def _go_back(self) -> None:
        """Load again what served before; its file is still here."""
        if self._serving is not None:
            record = self._serving.record
            await self._engine.load(await self._transport.fetch(record), record)
