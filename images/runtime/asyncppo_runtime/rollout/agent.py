"""The agent loop: one episode from reset to its end, many turns, exact token ids. Owns the order of turns and how an episode ends.

Ids the model sampled are kept as sampled and never encoded again; what the environment says is encoded once and appended. Each
generate() that ends is a segment; one that a pause interrupted is followed by another over prompt + partial ids, under whatever
version is loaded then. Does not own pauses (`gate.py`), engines, what an answer may be (`answers.py`), how long it may take
(`patience.py`), nor leases and uploads (`crew.py`, `outbox.py`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import RewardSpec
from asyncppo.printable import printable
from asyncppo_runtime.environments.interface import Environment, Turn
from asyncppo_runtime.policy import PolicyTokenizer
from asyncppo_runtime.policy.errors import TooLongError as TextTooLongError
from asyncppo_runtime.rollout.answers import AnswerError, Answers, TooLongError, done, of_kind, told, trace
from asyncppo_runtime.rollout.engines.interface import Engine, GenerateRequest
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.holds import HoldError
from asyncppo_runtime.rollout.patience import LateError, within
from asyncppo_runtime.rollout.randomness import continued_seed
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.rollout.undisturbed import CANCELLED, own_again

T = TypeVar("T")

CLOSE_SECONDS = 5.0
MOST_TRACES = 16

log = logging.getLogger(__name__)


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of an episode, from the manifest's `sampling`, `environment` and `reward`."""

    max_turns: int
    max_tokens: int
    context_length: int
    step_timeout_seconds: float
    temperature: float
    top_p: float
    reward_bound: float = RewardSpec().bound

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
            reward_bound=spec.reward.bound,
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
        self._holds = tally.holds
        self._traced: set[tuple[str, str]] = set()
        self._answers = Answers(settings.reward_bound, settings.context_length)

    async def play(self, episode: Episode) -> None:
        """Drive `episode` to its end. Whatever the environment does, raises or answers ends the episode, not the worker.

        Raises EngineError when the engine fails: the episode is then worth nothing and its lease can be given back. Raises
        CancelledError only for an episode that was dropped.
        """
        environment: Environment | None = None
        try:
            await self._waiting(episode)
            environment = await self._environment(episode, "the constructor", self._made())
            await self._turns(episode, environment)
        except _EndedError as ended:
            episode.end(ended.reason, ended.error)
        except asyncio.CancelledError as error:
            if episode.dropped:
                raise
            # not ours: an environment cancelled the task it ran in, or another's, and that shows at the next wait, wherever this is
            episode.end("environment_error", self._failure(error))
        finally:
            self._engine.forget(episode.session)
            if environment is not None:
                await self._closed(episode, environment)

    async def _made(self) -> Environment:
        return self._make_environment()

    async def _turns(self, episode: Episode, environment: Environment) -> None:
        settings, answers, tokenizer = self._settings, self._answers, self._tokenizer
        task = episode.lease.task
        observation = await self._environment(episode, "reset", _asked(environment, "reset", task))
        self._heard(episode, self._judged(episode, lambda: tokenizer.first(answers.observation(observation))))
        while True:
            turn_ids = await self._said(episode)
            action = tokenizer.action(turn_ids)
            answer = await self._environment(episode, "step", _asked(environment, "step", action, list(turn_ids)))
            episode.reward, over = self._judged(episode, lambda: self._earned(episode, answer))  # noqa: B023
            episode.turns += 1
            if over:
                raise _EndedError("done")
            if episode.turns >= settings.max_turns:
                raise _EndedError("max_turns")
            heard = self._judged(
                episode,
                lambda: tokenizer.following(answers.observation(answer.observation), turn_ids),  # noqa: B023
            )
            self._heard(episode, heard)

    def _earned(self, episode: Episode, answer: object) -> tuple[float, bool]:
        """What a step led to: the episode's rewards with it, and whether the episode is over."""
        turn = of_kind(answer, Turn)
        return self._answers.reward(turn, episode.reward), done(turn)

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

    async def _environment(self, episode: Episode, who: str, call: Coroutine[Any, Any, T]) -> T:
        """Have the environment do something, within the step timeout."""
        started = perf_counter()
        try:
            return await within(self._settings.step_timeout_seconds, call, self._holds, episode, who)
        except LateError as late:
            raise _EndedError("environment_timeout", f"{who}: {late}") from late
        except BaseException as error:
            if episode.dropped:
                raise
            failure = self._failure(error)
            self._trace(who, error)
            raise _EndedError("environment_error", failure) from error
        finally:
            episode.environment_seconds += perf_counter() - started

    def _trace(self, who: str, error: BaseException) -> None:
        """The whole trace of the first failure of a kind; the episode carries one line of each."""
        kind = (who, type(error).__name__)
        if kind not in self._traced and len(self._traced) < MOST_TRACES:
            self._traced.add(kind)
            log.warning(
                "an environment failed in %s; the first failure of its kind:\n%s", who, self._said_by(error, trace)
            )

    def _judged(self, episode: Episode, judge: Callable[[], T]) -> T:
        """Look at an answer. To look at it is to run code of the environment's: that may raise anything too, or not come back."""
        holds, allowed = self._holds, self._settings.step_timeout_seconds
        try:
            judgement = holds.run(judge)
        except HoldError as hold:
            raise _EndedError("environment_timeout", f"reading its answer {hold}") from hold
        except (TooLongError, TextTooLongError) as error:
            raise _EndedError("overlong") from error
        except AnswerError as error:
            raise _EndedError("environment_error", str(error)) from error
        except BaseException as error:
            raise _EndedError("environment_error", self._said_by(error)) from error
        finally:
            episode.environment_seconds += holds.last
            holds.tell("reading an answer", holds.last)
        if holds.last > allowed:
            held = f"held the event loop for {holds.last:.1f} s without a wait; {allowed:g} s are allowed"
            raise _EndedError("environment_timeout", f"reading its answer {held}")
        return judgement

    def _failure(self, error: BaseException) -> str:
        """What the episode says of its failure; whoever has cancelled its task, the task goes on."""
        cancelled = own_again() and isinstance(error, asyncio.CancelledError)
        return f"{self._said_by(error)}: {CANCELLED}" if cancelled else self._said_by(error)

    def _said_by(self, error: BaseException, say: Callable[[BaseException], str] = told) -> str:
        """An exception in words. To have them is to run code of the environment's once more."""
        try:
            return self._holds.run(say, error)
        except HoldError as hold:
            return f"{type(error).__name__}, whose text cannot be had: that {hold}"

    async def _closed(self, episode: Episode, environment: Environment) -> None:
        try:
            await within(CLOSE_SECONDS, _asked(environment, "close"), self._holds, episode, "close")
        except BaseException as error:  # the episode is over; a failing close must not undo it
            if episode.dropped and isinstance(error, asyncio.CancelledError):
                raise
            log.warning("an environment failed to close: %s", printable(self._failure(error), lines=False))


async def _asked(environment: Environment, method: str, *arguments: object) -> Any:
    """A coroutine of our own around it: whatever the attribute and the method are or raise shows only when it runs."""
    return await getattr(environment, method)(*arguments)
