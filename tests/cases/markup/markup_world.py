"""A world of two turns whose words would do something to a terminal, and to rich's markup."""

from collections.abc import Mapping
from typing import Any

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Observation, Turn

WORDS = [
    "[/red]",
    "[bold]x[/bold]",
    "[link=http://x]",
    "\x1b[31mred\x1b[0m",
    "\u202eabc",
    "zero\u200bwidth",
    "Straße",
    "[/]",
    "go",
]


class World:
    """Says all its words at once, then one more."""

    def __init__(self) -> None:
        self.turn = 0

    @classmethod
    def symbols(cls, parameters: Mapping[str, Any]) -> list[str]:
        return WORDS

    async def reset(self, task: Task) -> Observation:
        return Observation(text=" ".join(WORDS[:-2]))

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        self.turn += 1
        return Turn(Observation(text="[/]"), reward=float(len(action) % 3), done=self.turn >= 2)

    async def close(self) -> None:
        pass
