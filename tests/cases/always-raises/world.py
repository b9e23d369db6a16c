"""Episodes that cannot be played, each for a reason of its own; `fault` names it. The file is looked for beside the process."""

import os
from pathlib import Path
from typing import Any

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Observation, Turn


class World:
    """One turn. fault: what is wrong with each episode."""

    made = 0

    def __init__(self, **parameters: Any) -> None:
        World.made += 1
        self.fault = parameters["fault"]
        if self.fault == "constructor" and World.made > 1:  # the first is made to try the parameters
            Path("/nowhere/rules.txt").read_text()

    @classmethod
    def symbols(cls, parameters: dict[str, Any]) -> list[str]:
        """What the model may say, and what is said to it."""
        return ["a", "b", "go"]

    async def reset(self, task: Task) -> Observation:
        """The first words."""
        if self.fault == "file":
            _questions()
        return Observation(text="go " * 40 if self.fault == "prompt" else "go")

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """The end."""
        return Turn(Observation(text="go"), reward=float(action.count("a")), done=True)

    async def close(self) -> None:
        """Nothing to let go of."""


def _questions() -> str:
    return Path(os.environ.get("QUESTIONS", "/nowhere/questions.jsonl")).read_text()
