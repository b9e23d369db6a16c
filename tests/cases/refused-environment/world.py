"""Environments that can only fail, each in its own way; the job's entrypoint chooses."""

import sys

from asyncppo_runtime.environments.interface import Observation, Turn


class Good:
    """The others are this one with a fault."""

    def __init__(self, **parameters):
        pass

    @classmethod
    def symbols(cls, parameters):
        return ["a", "b", "go"]

    async def reset(self, task):
        return Observation(text="go")

    async def step(self, action, token_ids):
        return Turn(Observation(text="go"), 1.0, True)

    async def close(self):
        pass


class Plain(Good):
    """reset and step are no coroutines."""

    def reset(self, task):
        return Observation(text="go")

    def step(self, action, token_ids):
        return Turn(Observation(text="go"), 1.0, True)


class Exits(Good):
    """A script's argument parser, which takes the worker's arguments for its own."""

    def __init__(self, **parameters):
        sys.exit(2)
