"""A two-turn world that does what honest users' worlds have done, one oddity a task: the odd tasks must cost their own episodes only,
the even ones count."""

import array
import asyncio
import contextlib
import re
import sys
import time
from collections import Counter

import numpy as np
import torch

from asyncppo_runtime.environments.interface import Observation, Turn

GO = Observation(text="go")


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("not even that")


async def shrug():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def leave():
    sys.exit(2)


def won(reward, done=True):
    return Turn(GO, reward=reward, done=done)


class Slow:
    """Answers that take their time when they are looked at."""

    def __float__(self):
        time.sleep(60)

    item = __repr__ = __float__


def cancel_own_task():
    asyncio.current_task().cancel()
    return GO


def raising(error):
    raise error


# name → the part of the message that names it. What is done is beside it, at reset or at step.
FAILS = {
    "exit": ("SystemExit", None, lambda: sys.exit(2)),
    "interrupt": ("KeyboardInterrupt", lambda: raising(KeyboardInterrupt()), None),
    "swallows": ("went on for", None, shrug),
    "swallows in a task": ("went on for", None, lambda: asyncio.ensure_future(shrug())),
    "cancelled": ("CancelledError", None, lambda: raising(asyncio.CancelledError())),
    "cancels its task": ("CancelledError", cancel_own_task, None),
    "sleeps without await": ("world.py", None, lambda: time.sleep(60)),
    "computes for ever": ("world.py", None, lambda: re.match(r"(a+)+$", "a" * 64 + "b")),
    "answers late": ("held the event loop", None, lambda: time.sleep(1.2) or won(1.0)),
    "hangs in a thread": ("no answer within 1 s", None, lambda: asyncio.to_thread(time.sleep, 3600)),
    "exits in a thread": ("SystemExit", None, lambda: asyncio.to_thread(sys.exit, 3)),
    "unprintable": ("Unprintable", None, lambda: raising(Unprintable())),
    "reward of 1e308": ("spec.reward.bound", None, lambda: won(1e308)),
    "rewards that add up": ("spec.reward.bound", None, lambda: won(9e5, done=False)),
    "reward of 10**400": ("spec.reward.bound", None, lambda: won(10**400)),
    "reward of 10**5000": ("spec.reward.bound", None, lambda: won(10**5000)),
    "reward nan": ("nan", None, lambda: won(float("nan"))),
    "reward in words": ("'1.0' (str)", None, lambda: won("1.0")),
    "two rewards": ("(ndarray)", None, lambda: won(np.array([1.0, 2.0]))),
    "done in words": ("'yes' (str)", None, lambda: won(1.0, done="yes")),
    "float ids": ("3.0 (float)", lambda: Observation(token_ids=[3.0, 4.0]), None),
    "true ids": ("True (bool)", lambda: Observation(token_ids=[True]), None),
    "ids of a set": ("(set)", lambda: Observation(token_ids={3, 4}), None),
    "ids of a generator": ("(generator)", lambda: Observation(token_ids=(3 for _ in range(2))), None),
    "ids of bytes": ("(bytes)", lambda: Observation(token_ids=b"\x03"), None),
    "ids beyond": ("token_ids", lambda: Observation(token_ids=[2**40]), None),
    "text of bytes": ("b'go' (bytes)", lambda: Observation(text=b"go"), None),
    "nothing": ("exactly one of", Observation, None),
    "content none": ("content is a str", lambda: Observation(messages=[{"role": "assistant", "content": None}]), None),
    "messages of text": ("(str)", lambda: Observation(messages="go"), None),
    "none": ("answers with Turn", None, lambda: None),
    "slow number": ("world.py", None, lambda: won(Slow())),
    "slow repr": ("world.py", None, Slow),
}
COUNTS = {
    "plain": (None, None),
    "float32": (None, lambda: Turn(GO, np.float32(1.0), np.bool_(True))),
    "tensor": (None, lambda: Turn(GO, torch.tensor([1.0], requires_grad=True), torch.tensor(True))),
    "boolean": (None, lambda: Turn(GO, True, 1)),
    "numpy ids": (lambda: Observation(token_ids=np.array([3, 4], dtype=np.int32)), None),
    "array of ids": (lambda: Observation(token_ids=array.array("q", [3, 4])), None),
    "empty": (None, lambda: Turn(Observation(text=""), 0.5)),
    "long": (None, lambda: Turn(Observation(text="go " * 10_000_000), 0.5)),
    "thread": (None, lambda: asyncio.to_thread(lambda: won(1.0))),
    "a task that exits": (lambda: asyncio.ensure_future(leave()) and GO, None),
    "stops the loop": (None, lambda: asyncio.get_running_loop().stop() or won(1.0)),
    "close exits": (None, None),
    "close hangs": (None, None),
}
ONCE = {
    "sleeps without await",
    "computes for ever",
    "answers late",
    "slow number",
    "slow repr",
}  # they stop everybody, and a task has three attempts


class World:
    """What is odd about it is the task's."""

    done = Counter()

    def __init__(self, **parameters):
        self.turn = 0

    @classmethod
    def symbols(cls, parameters):
        return ["a", "b", "go"]

    async def reset(self, task):
        names = list(FAILS) if task.index % 2 else list(COUNTS)
        self.name = names[task.index // 2 % len(names)]
        World.done[self.name] += 1
        if self.name in ONCE and World.done[self.name] > 1:
            raise ValueError("once is enough")
        self.at_reset, self.at_step = FAILS[self.name][1:] if task.index % 2 else COUNTS[self.name]
        return await self.odd(self.at_reset, GO)

    async def step(self, action, token_ids):
        self.turn += 1
        token_ids.clear()
        return await self.odd(self.at_step, Turn(GO, float(action.count("a")), self.turn >= 2))

    async def odd(self, what, otherwise):
        answer = what() if what else otherwise
        return await answer if asyncio.iscoroutine(answer) or asyncio.isfuture(answer) else answer

    async def close(self):
        if self.name == "close exits":
            sys.exit(1)
        if self.name == "close hangs":
            await shrug()
