"""The agent loop: one episode from reset to its end, many turns, exact token ids. Owns the order of turns and how an episode ends.

Ids the model sampled are kept as sampled and never encoded again; what the environment says is encoded once and appended. Each
generate() that ends is a segment; one that a pause interrupted is followed by another over prompt + partial ids, under whatever
version is loaded then. Does not own pauses (`gate.py`), engines, nor leases and uploads (`crew.py`, `outbox.py`).
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo_runtime.environments.interface import Environment, Observation, Turn
from asyncppo_runtime.policy import EncodingError, PolicyTokenizer
from asyncppo_runtime.rollout.engines.interface import Engine, GenerateRequest
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.patience import LateError, within
from asyncppo_runtime.rollout.randomness import continued_seed
from asyncppo_runtime.rollout.tally import Tally

T = TypeVar("T")

CLOSE_SECONDS = 5.0
ERROR_CHARACTERS = 500

log = logging.getLogger(__name__)


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of an episode, from the manifest's `sampling` and `environment`."""

    max_turns: int
    max_tokens: int
    context_length: int
    step_timeout_seconds: float
    temperature: float
    top_p: float

    @classmethod
    def of(cls, spec: AsyncPPOJobSpec) -> "AgentSettings":
        """What the manifest says."""
        return cls(
            max_turns=spec.environment.max_turns,
            max_tokens=spec.sampling.max_tokens,
            context_length=spec.sampling.context_length,
            step_timeout_seconds=spec.environment.step_timeout_seconds,
            temperature=spec.sampling.temperature,
            top_p=spec.sampling.top_p,
        )


class _EndedError(Exception):
    """The episode ends here, for `reason`; never leaves this module."""

    def __init__(self, reason: str, error: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


class Agent:
    """Plays episodes; one object serves all of a worker's.

    make_environment: a new environment per episode.
    """

    def __init__(
        self,
        settings: AgentSettings,
        engine: Engine,
        tokenizer: PolicyTokenizer,
        make_environment: Callable[[], Environment],
        gate: Gate,
        tally: Tally,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._tokenizer = tokenizer
        self._make_environment = make_environment
        self._gate = gate
        self._tally = tally

    async def play(self, episode: Episode) -> None:
        """Drive `episode` to its end. Whatever the environment does ends the episode, not the worker.

        Raises EngineError when the engine fails: the episode is then worth nothing and its lease can be given back.
        """
        environment: Environment | None = None
        try:
            await self._waiting(episode)
            environment = await self._environment(episode, self._made())
            await self._turns(episode, environment)
        except _EndedError as ended:
            episode.end(ended.reason, ended.error)
        finally:
            self._engine.forget(episode.session)
            if environment is not None:
                await self._closed(environment)

    async def _made(self) -> Environment:
        return self._make_environment()

    async def _turns(self, episode: Episode, environment: Environment) -> None:
        settings = self._settings
        observation = await self._environment(episode, _called(environment.reset, episode.lease.task))
        self._heard(episode, self._encoded(self._tokenizer.first, _checked(observation, Observation)))
        while True:
            turn_ids = await self._said(episode)
            action = self._tokenizer.action(turn_ids)
            turn = await self._environment(episode, _called(environment.step, action, turn_ids))
            turn = _checked(turn, Turn)
            episode.reward += _finite(turn.reward)
            episode.turns += 1
            if turn.done:
                raise _EndedError("done")
            if episode.turns >= settings.max_turns:
                raise _EndedError("max_turns")
            observed = _checked(turn.observation, Observation)
            self._heard(episode, self._encoded(lambda o: self._tokenizer.following(o, turn_ids), observed))  # noqa: B023

    async def _said(self, episode: Episode) -> list[int]:
        """One model turn, over as many pauses as may come. Its tokens are in the episode when this returns."""
        settings = self._settings
        begin = len(episode.token_ids)
        most = min(settings.max_tokens, settings.context_length - begin)
        while True:
            await self._waiting(episode, enter=True)
            at = len(episode.token_ids)
            started = perf_counter()
            try:
                result = await self._engine.generate(
                    GenerateRequest(
                        session=episode.session,
                        token_ids=list(episode.token_ids),
                        max_tokens=most - (at - begin),
                        stop_token_ids=self._tokenizer.stop_token_ids,
                        temperature=settings.temperature,
                        top_p=settings.top_p,
                        seed=continued_seed(episode.lease.sampling_seed, at),
                    )
                )
                episode.append_sampled(result)
                self._tally.sampled_tokens += len(result.token_ids)
            finally:
                self._gate.leave()
                episode.sampling_seconds += perf_counter() - started
            turn_ids = episode.token_ids[begin:]
            if result.finish_reason == "interrupted" and len(turn_ids) < most:
                continue
            if result.finish_reason != "stop" and len(turn_ids) < settings.max_tokens:
                raise _EndedError("overlong")
            return turn_ids

    def _heard(self, episode: Episode, token_ids: list[int]) -> None:
        """Append what the environment said, if the model could still answer after it."""
        if len(episode.token_ids) + len(token_ids) >= self._settings.context_length:
            raise _EndedError("overlong")
        if not episode.token_ids and not token_ids:
            raise _EndedError("environment_error", "the first observation is empty and the tokenizer adds no <bos>")
        episode.append_environment(token_ids)

    async def _waiting(self, episode: Episode, enter: bool = False) -> None:
        gate = self._gate
        if gate.is_open:
            if enter:
                await gate.enter()
            return
        started = perf_counter()
        try:
            await (gate.enter() if enter else gate.passed())
        finally:
            episode.paused_seconds += perf_counter() - started

    async def _environment(self, episode: Episode, call: Coroutine[Any, Any, T]) -> T:
        """Have the environment do something, within the step timeout."""
        started = perf_counter()
        try:
            return await within(self._settings.step_timeout_seconds, call)
        except LateError as late:
            raise _EndedError("environment_timeout", str(late)) from late
        except Exception as error:
            log.debug("an environment failed", exc_info=True)
            raise _EndedError("environment_error", _told(error)) from error
        finally:
            episode.environment_seconds += perf_counter() - started

    def _encoded(self, encode: Callable[[Observation], list[int]], observation: Observation) -> list[int]:
        try:
            return encode(observation)
        except EncodingError as error:
            raise _EndedError("environment_error", _told(error)) from error
        except (
            TypeError,
            ValueError,
            AttributeError,
            KeyError,
        ) as error:  # an observation whose fields are not what they say
            raise _EndedError("environment_error", _told(error)) from error

    async def _closed(self, environment: Environment) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await environment.close()
        except Exception as error:  # noqa: BLE001 - the episode is over; a failing close must not undo it
            log.warning("an environment failed to close: %s", _told(error))


async def _called(method: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """A coroutine of our own around it: whatever the method is or raises shows only when it runs."""
    return await method(*arguments)


def _checked(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise _EndedError(
            "environment_error", f"an environment must answer with {kind.__name__}, not {type(value).__name__}"
        )
    return value


def _finite(reward: object) -> float:
    if not isinstance(reward, int | float) or not math.isfinite(reward):
        raise _EndedError("environment_error", f"a reward must be a finite number, not {reward!r}")
    return float(reward)


def _told(error: Exception) -> str:
    """Its text, safe to send: a file name in it may hold bytes that are no UTF-8."""
    text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
    return text.encode("utf-8", "backslashreplace").decode()
