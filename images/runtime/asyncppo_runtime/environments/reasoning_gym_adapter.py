"""Tasks of the `reasoning-gym` package: one question, one answer, a score. Owns the adapter; the tasks are the package's.

A task's seed makes its item: a dataset of size 1 is built with it, so the same task is the same question on every worker. The
question goes out as messages; a model without a chat template reads them as plain text (`asyncppo_runtime.policy.chat`).
"""

import asyncio
import difflib
import json
from functools import lru_cache
from typing import Any

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Observation, Turn

TAGGED, PLAIN = "Tagged", "Plain"
SEEDS = 2**32 - 1  # some datasets seed generators that take 32 bits


class ReasoningGym:
    """dataset: a name of reasoning-gym, e.g. `chain_sum`. config: its keyword arguments, without seed and size.

    answer: Tagged takes what stands in the last <answer>...</answer> (none: score 0), Plain takes the whole reply, stripped.
    systemPrompt: the system message, or the name of one of the package's; default `direct` with Tagged, none with Plain.
    """

    def __init__(
        self, dataset: str, config: dict[str, Any] | None = None, answer: str = TAGGED, systemPrompt: str | None = None
    ) -> None:
        if answer not in (TAGGED, PLAIN):
            raise ValueError(f"answer must be {TAGGED} or {PLAIN}, not {answer!r}")
        self._name = dataset
        self._config = dict(config or {})
        self._tagged = answer == TAGGED
        self._system = _system_prompt(systemPrompt, self._tagged)
        _check(dataset, json.dumps(self._config, sort_keys=True))
        self._dataset: Any = None
        self._entry: dict[str, Any] = {}

    async def reset(self, task: Task) -> Observation:
        """The question."""
        self._dataset = await asyncio.to_thread(_build, self._name, self._config, task.seed % SEEDS)
        self._entry = await asyncio.to_thread(self._dataset.__getitem__, 0)
        messages = [{"role": "system", "content": self._system}] if self._system else []
        return Observation(messages=[*messages, {"role": "user", "content": str(self._entry["question"])}])

    async def step(self, action: str, token_ids: list[int]) -> Turn:
        """Score the reply; the episode is over."""
        from reasoning_gym.utils import extract_answer

        answer = extract_answer(action) if self._tagged else action.strip()
        score = 0.0
        if answer is not None:
            score = float(await asyncio.to_thread(self._dataset.score_answer, answer, self._entry))
        return Turn(Observation(text=""), reward=score, done=True, info={"answer": answer})

    async def close(self) -> None:
        """Let go of the dataset."""
        self._dataset = None


def _system_prompt(wanted: str | None, tagged: bool) -> str:
    from reasoning_gym.utils import SYSTEM_PROMPTS

    if wanted is None:
        return str(SYSTEM_PROMPTS["direct"]) if tagged else ""
    return str(SYSTEM_PROMPTS.get(wanted, wanted))


@lru_cache
def _check(name: str, config: str) -> None:
    """Raises ValueError for a dataset that is not there or refuses its configuration; once per program."""
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, 1)
        hint = f"did you mean {near[0]}?" if near else "reasoning_gym.factory.DATASETS names them all"
        raise ValueError(f"reasoning-gym has no dataset {name!r}; {hint}")
    reserved = {"seed", "size"} & json.loads(config).keys()
    if reserved:
        raise ValueError(f"config must not set {', '.join(sorted(reserved))}; items come from the task's seed")
    try:
        _build(name, json.loads(config), 0)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"the dataset {name} refuses its config: {error}") from error


def _build(name: str, config: dict[str, Any], seed: int) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, **config, seed=seed, size=1)
