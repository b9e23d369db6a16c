"""The one interface of environments. Owns its words; does not own timeouts (the agent loop does) nor tokenization of text.

An environment talks in text or in token ids; whichever, the agent loop keeps exact ids of every token.
"""

from typing import Any, Protocol

import msgspec

from asyncppo.wire.experience import Task


class Observation(msgspec.Struct, frozen=True):
    """What the agent sees next: `text`, or `messages` (for a chat template: role and content), or exact `token_ids`. One of the three."""

    text: str | None = None
    messages: list[dict[str, str]] | None = None
    token_ids: list[int] | None = None


class Turn(msgspec.Struct, frozen=True):
    """What an action led to: what the agent sees, the reward earned by it (rewards of an episode add up), whether it is over."""

    observation: Observation
    reward: float = 0.0
    done: bool = False
    info: dict[str, Any] = {}


class Environment(Protocol):
    """One episode's world; made anew for each lease. Draws randomness only from `task.seed`.

    A class of your own takes its `parameters` as keyword arguments: `class Mine: def __init__(self, **parameters)`.
    """

    async def reset(self, task: Task) -> Observation:
        """Start the episode of `task`: the first observation (the prompt)."""

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """The agent said `action` (decoded, stop token stripped) = `token_ids` (exact, as sampled)."""

    async def close(self) -> None:
        """Free what the episode holds."""


class SymbolEnvironment(Protocol):
    """What an environment declares to be playable by the built-in tiny model: its symbols."""

    @classmethod
    def symbols(cls, parameters: dict[str, Any]) -> list[str]:
        """Every symbol of the environment's language, in a fixed order; one token each."""
