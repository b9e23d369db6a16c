"""The reasoning-gym adapter: items from the seed, answers scored by the package."""

from typing import Any

import pytest

from asyncppo.wire.experience import Task
from asyncppo_runtime.environments.interface import Turn

pytest.importorskip("reasoning_gym", reason="install the extra: pip install 'asyncppo[reasoning-gym]'")

from asyncppo_runtime.environments.reasoning_gym_adapter import ReasoningGym


async def episode(reply: str, seed: int = 7, **parameters: Any) -> tuple[list[dict[str, str]], Turn]:
    """Question and what a reply earns; `{answer}` in the reply is the right one."""
    environment = ReasoningGym("chain_sum", {"min_terms": 2, "max_terms": 2}, **parameters)
    observation = await environment.reset(Task(0, seed))
    turn = await environment.step(reply.replace("{answer}", str(environment._entry["answer"])), [])
    await environment.close()
    assert observation.messages is not None
    return observation.messages, turn


async def test_the_question_is_the_seeds() -> None:
    questions = [(await episode("", seed))[0][-1]["content"] for seed in (7, 7, 8, 2**63 - 1)]
    assert questions[0] == questions[1]
    assert len(set(questions)) == 3


@pytest.mark.parametrize(
    ("answer", "reply", "score"),
    [
        ("Tagged", "let me see <answer>{answer}</answer>", 1.0),
        ("Tagged", "<answer>x</answer> no: <answer> {answer} </answer>", 1.0),
        ("Tagged", "{answer}", 0.0),
        ("Tagged", "<answer>nonsense</answer>", 0.0),
        ("Plain", " {answer}\n", 1.0),
        ("Plain", "nonsense", 0.0),
    ],
)
async def test_an_answer_is_scored_once(answer: str, reply: str, score: float) -> None:
    _, turn = await episode(reply, answer=answer)
    assert turn.done
    assert turn.reward == pytest.approx(score, abs=0.02)


async def test_system_prompts() -> None:
    assert (await episode(""))[0][0]["role"] == "system"
    assert len((await episode("", answer="Plain"))[0]) == 1
    assert (await episode("", systemPrompt="Be brief."))[0][0]["content"] == "Be brief."
    assert "minimum draft" in (await episode("", systemPrompt="chain_of_draft"))[0][0]["content"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dataset": "chain_sums"}, "did you mean chain_sum"),
        ({"dataset": "chain_sum", "config": {"min_terms": 9, "max_terms": 2}}, "refuses its config"),
        ({"dataset": "chain_sum", "config": {"no_such": 1}}, "no_such"),
        ({"dataset": "chain_sum", "config": {"seed": 1}}, "must not set seed"),
        ({"dataset": "chain_sum", "answer": "Maybe"}, "Tagged or Plain"),
    ],
)
def test_what_the_package_refuses_is_said_at_start(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ReasoningGym(**arguments)
