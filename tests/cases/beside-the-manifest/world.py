"""Beside it lie modules with the names of everybody else's; its own words come from one that is nobody else's."""

import random
import types
from statistics import mean

from vocabulary_of_this_world import WORDS

from asyncppo_runtime.environments.interface import Observation, Turn


class World:
    """Two turns."""

    def __init__(self, **parameters):
        self.turn = 0
        self.random = random.Random(0)
        assert types.SimpleNamespace(a=1).a == 1

    @classmethod
    def symbols(cls, parameters):
        return WORDS

    async def reset(self, task):
        return Observation(text="go")

    async def step(self, action, token_ids):
        self.turn += 1
        return Turn(Observation(text="go"), mean([action.count("a"), self.random.random()]), self.turn >= 2)

    async def close(self):
        pass
