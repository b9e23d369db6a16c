"""Generating by ids: what every engine promises about one request and about many."""

import asyncio
import math
from collections import Counter

import pytest
from tests.engine_contract.builders import CONTEXT, errors, prompt_of, request
from tests.engine_contract.conftest import Subject

from asyncppo_runtime.rollout.engines.interface import EngineError

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_ids_logprobs_and_one_span_come_back(subject: Subject) -> None:
    prompt = prompt_of(1)
    result = await subject.engine.generate(request(prompt, 24))
    assert len(result.token_ids) == len(result.logprobs) == 24
    assert result.finish_reason == "length"
    assert [(span.start, span.end, span.version) for span in result.spans] == [(0, 24, subject.engine.version)]
    assert max(map(abs, errors(subject.versions, prompt, result))) < 1e-4


async def test_many_at_once_each_get_their_own(subject: Subject) -> None:
    prompts = [prompt_of(100 + index, 4 + index % 7) for index in range(96)]
    results = await asyncio.gather(
        *(subject.engine.generate(request(prompt, 1 + index % 40)) for index, prompt in enumerate(prompts))
    )
    for index, (prompt, result) in enumerate(zip(prompts, results, strict=True)):
        assert len(result.token_ids) == 1 + index % 40
        assert max(map(abs, errors(subject.versions, prompt, result))) < 1e-4
    assert subject.engine.running == 0


async def test_a_stop_token_ends_the_turn_and_is_part_of_it(subject: Subject) -> None:
    everything = list(range(3, 19))
    results = await asyncio.gather(
        *(subject.engine.generate(request(prompt_of(300 + index), 64, everything)) for index in range(8))
    )
    stopped = [result for result in results if result.finish_reason == "stop"]
    assert stopped
    for result in stopped:
        assert result.token_ids[-1] in everything
        assert not set(result.token_ids[:-1]) & set(everything)
        assert len(result.logprobs) == len(result.token_ids)


async def test_an_end_of_sequence_that_is_no_stop_token_does_not_stop(subject: Subject) -> None:
    results = await asyncio.gather(*(subject.engine.generate(request(prompt_of(400 + i), 48)) for i in range(8)))
    assert any(2 in result.token_ids[:-1] for result in results)
    assert {result.finish_reason for result in results} == {"length"}


async def test_logprobs_are_of_the_distribution_sampled_from_at_any_temperature(subject: Subject) -> None:
    for temperature in (0.7, 1.6):
        prompt = prompt_of(int(temperature * 10))
        result = await subject.engine.generate(request(prompt, 16, temperature=temperature))
        assert max(map(abs, errors(subject.versions, prompt, result, temperature))) < 1e-4


async def test_tokens_come_as_often_as_their_logprobs_say(subject: Subject) -> None:
    draws = 2000
    prompt = prompt_of(500)
    seen: Counter[int] = Counter()
    probability: dict[int, float] = {}
    for _ in range(0, draws, 250):
        for result in await asyncio.gather(
            *(
                subject.engine.generate(request(prompt, 1, session=f"d{i}", seed=sum(seen.values()) + i))
                for i in range(250)
            )
        ):
            seen[result.token_ids[0]] += 1
            probability[result.token_ids[0]] = math.exp(result.logprobs[0])
    assert sum(probability.values()) < 1 + 1e-3
    for token, chance in probability.items():
        deviation = abs(seen[token] - draws * chance) / math.sqrt(draws * chance * (1 - chance) + 1)
        assert deviation < 6, f"token {token}: {seen[token]} of {draws} at probability {chance:.3f}"


async def test_the_last_room_of_the_context_is_used_and_not_more(subject: Subject) -> None:
    prompt = prompt_of(600, CONTEXT - 3)
    result = await subject.engine.generate(request(prompt, 64))
    assert (len(result.token_ids), result.finish_reason) == (3, "length")
    assert max(map(abs, errors(subject.versions, prompt, result))) < 1e-4


@pytest.mark.parametrize("length", [0, CONTEXT, CONTEXT + 40])
async def test_a_context_that_does_not_fit_is_an_error_and_nothing_else_suffers(subject: Subject, length: int) -> None:
    beside = asyncio.create_task(subject.engine.generate(request(prompt_of(700), 40)))
    await asyncio.sleep(0)
    with pytest.raises(EngineError, match=r"contextLength|at least one token"):
        await subject.engine.generate(request(prompt_of(701, length)))
    assert len((await beside).token_ids) == 40


async def test_a_second_turn_over_exact_ids_is_exact(subject: Subject) -> None:
    prompt = prompt_of(800, 40)
    first = await subject.engine.generate(request(prompt, 30, session="turns"))
    second_prompt = prompt + first.token_ids + prompt_of(801, 12)
    second = await subject.engine.generate(request(second_prompt, 30, session="turns"))
    assert max(map(abs, errors(subject.versions, second_prompt, second))) < 1e-4
    subject.engine.forget("turns")


async def test_a_cancelled_call_leaves_the_engine_idle_and_well(subject: Subject) -> None:
    calls = [asyncio.create_task(subject.engine.generate(request(prompt_of(900 + i), 150))) for i in range(8)]
    await subject.until(lambda: subject.engine.running > 0)
    for call in calls[:4]:
        call.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[:4])
    assert all(len(outcome.token_ids) == 150 for outcome in outcomes[4:] if not isinstance(outcome, BaseException))
    assert subject.engine.running == 0
    assert len((await subject.engine.generate(request(prompt_of(910), 5))).token_ids) == 5
