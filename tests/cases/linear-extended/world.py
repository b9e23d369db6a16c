"""One turn; each `a` is worth 1."""

from typing import Any

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Observation, Turn


class World:
    """Saying a is right."""

    def __init__(self, **parameters: Any) -> None:
        pass

    @classmethod
    def symbols(cls, parameters: dict[str, Any]) -> list[str]:
        """What the model may say, and what is said to it."""
        return ["a", "b", "go"]

    async def reset(self, task: Task) -> Observation:
        """The first words."""
        return Observation(text="go")

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """The end."""
        return Turn(Observation(text="go"), reward=float(action.count("a")), done=True)

    async def close(self) -> None:
        """Nothing to let go of."""
