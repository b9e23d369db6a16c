"""Talks in messages, or in text where `says` is text. In odd tasks the conversation holds a turn that has no content."""

from asyncppo_runtime.environments.interface import Observation, Turn


class World:
    """Two turns."""

    def __init__(self, says="messages"):
        self.turn = 0
        self.says = says

    async def reset(self, task):
        if self.says == "text":
            return Observation(text="héllo 🌍 \u202e")
        calls = [{"role": "assistant", "content": None}, {"role": "tool", "content": "7"}] if task.index % 2 else []
        return Observation(messages=[{"role": "user", "content": "q"}, *calls])

    async def step(self, action, token_ids):
        self.turn += 1
        again = (
            Observation(text=" ok")
            if self.says == "text"
            else Observation(messages=[{"role": "user", "content": "again"}])
        )
        return Turn(again, float(len(action) % 3), self.turn >= 2)

    async def close(self):
        pass
