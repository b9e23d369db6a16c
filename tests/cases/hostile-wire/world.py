"""One turn, slow until the file that $GO names is there: the job is under way for as long as a test needs it."""

import asyncio
import os
from typing import Any

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Observation, Turn

GO = os.environ["GO"]


class World:
    """The reward is the answer's number of words, and a little of the task's."""

    def __init__(self, **parameters: Any) -> None:
        self._seed = 0

    @classmethod
    def symbols(cls, parameters: dict[str, Any]) -> list[str]:
        """What the model may say, and what is said to it."""
        return ["a", "b", "go"]

    async def reset(self, task: Task) -> Observation:
        """The first words."""
        self._seed = task.seed
        return Observation(text="go")

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """The end."""
        if not os.path.exists(GO):  # noqa: ASYNC240 (a stat of a local file)
            await asyncio.sleep(2.0)
        return Turn(Observation(text="go"), reward=0.1 * len(action.split()) + 0.01 * (sum(token_ids) % 7), done=True)

    async def close(self) -> None:
        """Nothing to let go of."""
