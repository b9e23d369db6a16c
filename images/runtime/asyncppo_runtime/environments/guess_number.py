"""Guess the number: the built-in multi-turn environment. Owns its rules and, for benchmarks, a tool delay drawn from the seed.

A number is hidden; each turn is one guess, answered `<` (the hidden number is smaller), `>` (larger) or `=` (found). Found at try k
earns 1.1 - 0.1k, never found earns 0. A guess that is not one of the numbers uses up a try and is answered `?`.
"""

import asyncio
import random
from typing import Any

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Observation, Turn

SMALLER, LARGER, FOUND, INVALID = "<", ">", "=", "?"


class GuessNumber:
    """numbers: hidden numbers are 0..numbers-1. tries: guesses of an episode.

    delaySeconds: the least time one step takes (0: none); delayTail: shape of the Pareto tail above it (smaller is heavier; 0: always
    delaySeconds); delayCap: longest step, in multiples of delaySeconds. Delays come from the task's seed alone.
    """

    def __init__(
        self,
        numbers: int = 16,
        tries: int = 5,
        delaySeconds: float = 0.0,
        delayTail: float = 0.0,
        delayCap: float = 20.0,
    ) -> None:
        if not isinstance(numbers, int) or not 2 <= numbers <= 4096:
            raise ValueError(f"numbers must be an integer from 2 to 4096, not {numbers!r}")
        if not isinstance(tries, int) or not 1 <= tries <= 11:
            raise ValueError(f"tries must be an integer from 1 to 11 (try 12 would earn nothing), not {tries!r}")
        if delaySeconds < 0 or delayTail < 0 or delayCap < 1:
            raise ValueError("delaySeconds and delayTail must not be negative, delayCap must be at least 1")
        self._numbers = numbers
        self._tries = tries
        self._delay = (float(delaySeconds), float(delayTail), float(delayCap))
        self._random: random.Random | None = None  # seeding one is not cheap; `reset` does it
        self._hidden = 0
        self._used = 0

    @classmethod
    def symbols(cls, parameters: dict[str, Any]) -> list[str]:
        """The numbers, then the answers."""
        return [*(str(n) for n in range(int(parameters.get("numbers", 16)))), SMALLER, LARGER, FOUND, INVALID]

    async def reset(self, task: Task) -> Observation:
        """Hide a number drawn from the task's seed; the prompt is empty (the tokenizer's `<bos>`)."""
        self._random = random.Random(task.seed)
        self._hidden = self._random.randrange(self._numbers)
        self._used = 0
        return Observation(text="")

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """Answer one guess."""
        await self._wait()
        self._used += 1
        words = action.split()
        guess = int(words[0]) if len(words) == 1 and words[0].isdecimal() else -1
        if guess == self._hidden:
            return Turn(Observation(text=FOUND), reward=reward_at(self._used), done=True)
        if not 0 <= guess < self._numbers:
            answer = INVALID
        else:
            answer = SMALLER if self._hidden < guess else LARGER
        return Turn(Observation(text=answer), done=self._used >= self._tries)

    async def close(self) -> None:
        """Nothing is held."""

    async def _wait(self) -> None:
        least, tail, cap = self._delay
        if least > 0 and self._random is not None:
            factor = self._random.paretovariate(tail) if tail > 0 else 1.0
            await asyncio.sleep(least * min(factor, cap))


def reward_at(tries: int) -> float:
    """What finding the number at the given try earns."""
    return (11 - tries) / 10
