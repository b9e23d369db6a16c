"""The one interface of inference engines. Owns its words and guarantees; does not own any engine.

The shape follows what vLLM really does (pause with abort): at a pause every running request ends at a token boundary and comes
back with what it has; the engine is then empty and can be loaded and checked; the agent loop asks again with prompt + partial
ids. An engine never keeps KV of one version under another.
"""

from pathlib import Path
from typing import Literal, Protocol

import msgspec

from asyncppo.wire.versions import VersionRecord


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Continue `token_ids` (the whole context, exact ids) by at most `max_tokens`.

    session: names the episode; consecutive requests of a session share a prefix, an engine may keep its KV.
    seed: of this request's sampling; the same request under the same weights and batch gives the same tokens where the engine can.
    """

    session: str
    token_ids: list[int]
    max_tokens: int
    stop_token_ids: list[int]
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


class Span(msgspec.Struct, frozen=True):
    """Output tokens [start, end) of one result, all sampled under `version` from weights whose bytes hash to `weights_hash`."""

    version: int
    weights_hash: str
    start: int
    end: int


class GenerateResult(msgspec.Struct, frozen=True):
    """Sampled ids (a stop token included), the log-prob of each under the distribution sampled from, and who sampled it.

    finish_reason: stop, length, or interrupted (a pause; ask again with prompt + token_ids).
    """

    token_ids: list[int]
    logprobs: list[float]
    spans: list[Span]
    finish_reason: Literal["stop", "length", "interrupted"]


class EngineError(Exception):
    """An engine cannot do what it was asked; the message names the manifest's field where one is to blame."""


class EngineLostError(EngineError):
    """The engine is gone or unusable through no fault of the manifest's; another one may do."""


class WeightsRejectedError(EngineError):
    """A weights file was refused (hash, names, shapes, canary); the version before it still serves."""


class Engine(Protocol):
    """An inference engine in this process. All methods run on one asyncio loop; none blocks it for long."""

    async def start(self) -> None:
        """Build the model's shape; after it `load` is possible. Raises EngineError; EngineLostError when trying again may help."""

    async def load(self, weights: Path, record: VersionRecord) -> str:
        """Load a pulled file, all or nothing, only while paused. Drops all KV. Returns the hash computed from the loaded bytes.

        Raises WeightsRejectedError and goes on serving the old version when names, shapes or bytes are wrong.
        """

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """Sample. While the engine is paused a new call waits for `resume`. Raises EngineError for a context that does not fit."""

    async def prompt_logprobs(self, token_ids: list[int]) -> list[float]:
        """Log-probs of token_ids[1:] under the loaded weights at temperature 1; works while paused (the canary)."""

    async def pause(self) -> None:
        """Stop at a token boundary. When it returns, every generate() that was running has returned (interrupted or done) and no
        token is sampled until `resume`."""

    async def resume(self) -> None:
        """Go on."""

    def forget(self, session: str) -> None:
        """The episode is over: its KV may go."""

    async def close(self) -> None:
        """Free everything; running calls raise EngineError."""

    async def lost(self) -> EngineLostError:
        """Returns when this engine can never sample again (its process died, a load broke it), and says why; else waits for ever.

        The worker then ends, to be started anew with another engine.
        """

    @property
    def version(self) -> int:
        """Version loaded; -1 before the first load."""

    @property
    def running(self) -> int:
        """Requests being generated now."""

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache in use, 0 to 1."""
