"""Rewards that are finite, and too large to be trained on: alone, or in their sum."""

from typing import Any

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Observation, Turn


class World:
    """reward: of each turn. turns: how many."""

    def __init__(self, **parameters: Any) -> None:
        self.reward = float(parameters["reward"])
        self.turns = int(parameters["turns"])

    @classmethod
    def symbols(cls, parameters: dict[str, Any]) -> list[str]:
        """What the model may say, and what is said to it."""
        return ["a", "b", "go"]

    async def reset(self, task: Task) -> Observation:
        """The first words."""
        return Observation(text="go")

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """One turn less."""
        self.turns -= 1
        return Turn(Observation(text="go"), reward=self.reward, done=self.turns == 0)

    async def close(self) -> None:
        """Nothing to let go of."""
