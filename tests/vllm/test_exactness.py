"""Swaps in mid-generation on real vLLM: every token's log-prob is that of the version it is tagged with.

The tied output head is what vLLM's CPU build forgets to reload; the wrong version differs by about 1 nat here, the right one by
the precision's noise.
"""

import asyncio
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engine_contract.builders import CONTEXT, Version, errors, logprobs_of, make_spec, prompt_of, publish, request
from tests.vllm.models import VOCABULARY, tied_model, tied_qwen2

from asyncppo_runtime.rollout.engines.interface import GenerateResult
from asyncppo_runtime.rollout.engines.vllm_engine import VllmEngine

SWAPS = 3
ROWS = 12


async def _cross(engine: VllmEngine, versions: dict[int, Version]) -> tuple[list[float], list[float]]:
    """Grow ROWS contexts to their end over SWAPS swaps. Errors per token, and errors under the version before (or after)."""
    contexts = [prompt_of(index, 6, VOCABULARY) for index in range(ROWS)]
    right: list[float] = []
    wrong: list[float] = []
    seen: list[set[int]] = [set() for _ in contexts]
    upcoming = list(versions)[1:]
    patience = 0.02
    while any(len(context) < CONTEXT for context in contexts):
        rows = [index for index, context in enumerate(contexts) if len(context) < CONTEXT]
        calls = [
            asyncio.create_task(engine.generate(request(contexts[row], CONTEXT - len(contexts[row])))) for row in rows
        ]
        if upcoming:
            await asyncio.sleep(patience)
            await engine.pause()
            if any(call.result().token_ids for call in calls):
                version = versions[upcoming.pop(0)]
                await engine.load(version.path, version.record)
            else:
                patience *= 2  # a busy machine: the version must sample before it may go
            await engine.resume()
        for row, result in zip(rows, await asyncio.gather(*calls), strict=True):
            right += errors(versions, contexts[row], result)
            wrong += _under_another(versions, contexts[row], result)
            contexts[row] = contexts[row] + result.token_ids
            seen[row] |= {span.version for span in result.spans}
    assert max(map(len, seen)) == SWAPS + 1, f"no context crossed all swaps: {seen}"
    return right, wrong


def _under_another(versions: dict[int, Version], prompt: list[int], result: GenerateResult) -> list[float]:
    found: list[float] = []
    for span in result.spans:
        other = versions[span.version + 1 if span.version + 1 in versions else span.version - 1]
        reference = logprobs_of(other.model, prompt + result.token_ids)[len(prompt) - 1 :]
        found += [result.logprobs[index] - reference[index] for index in range(span.start, span.end)]
    return found


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs 2 GPUs")


@pytest.mark.parametrize(
    ("precision", "engine"),
    [
        pytest.param("Float32", {}, id="fp32"),
        pytest.param("BFloat16", {}, id="bf16"),
        pytest.param("Float32", {"options": {"data_parallel_size": 2}}, id="two-replicas"),
        pytest.param("BFloat16", {"tensorParallel": 2}, id="two-gpus", marks=TWO_GPUS),
    ],
)
async def test_tokens_match_a_transformers_forward_of_their_version(
    tmp_path: Path, precision: str, engine: dict[str, Any]
) -> None:
    spec = make_spec({"type": "VLLM", "precision": precision, **engine}, tied_qwen2(tmp_path / "model"))
    versions = {number: publish(spec, tmp_path, number, tied_model(number)) for number in range(SWAPS + 1)}
    subject = VllmEngine(spec)
    await subject.start()
    try:
        await subject.load(versions[0].path, versions[0].record)
        await subject.resume()
        right, wrong = await _cross(subject, versions)
        canary = prompt_of(77, 60, VOCABULARY)
        scored = await subject.prompt_logprobs(canary)
    finally:
        await subject.close()
    reference = logprobs_of(versions[SWAPS].model, canary)
    right += [ours - theirs for ours, theirs in zip(scored, reference, strict=True)]
    worst, mean = max(map(abs, right)), statistics.fmean(right)
    noise = statistics.stdev(right) / math.sqrt(len(right))
    print(
        f"{precision}: {len(right)} tokens, worst {worst:.2e}, mean {mean:+.2e} ± {noise:.1e}; under another version {max(wrong):.2f}"
    )
    assert worst < (1e-4 if precision == "Float32" else 0.1)
    assert abs(mean) < 5 * noise + 1e-6
    assert statistics.fmean(map(abs, wrong)) > 0.2
