"""Outcomes in vLLM's words become results, or errors when they do not belong together. No vLLM needed."""

from types import SimpleNamespace
from typing import Any

import pytest

from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateRequest, Span
from asyncppo_runtime.rollout.engines.vllm_requests import check, label, prompt_scores, result

HASH = "ab" * 32


def _output(ids: list[int], spans: list[tuple[str, int, int]], reason: str | None = "stop", **more: Any) -> Any:
    flat = SimpleNamespace(token_ids=more.get("logged", ids), logprobs=more.get("logprobs", [-1.0] * len(ids)))
    named = [SimpleNamespace(version=version, start=start, end=end) for version, start, end in spans]
    return SimpleNamespace(
        outputs=[SimpleNamespace(token_ids=ids, logprobs=flat, weight_versions=named, finish_reason=reason)]
    )


def test_spans_carry_version_and_hash() -> None:
    found = result(_output([5, 6, 7], [(label(3, HASH), 0, 2), (label(4, "cd" * 32), 2, 3)], "length"))
    assert found.spans == [Span(3, HASH, 0, 2), Span(4, "cd" * 32, 2, 3)]
    assert found.finish_reason == "length"


def test_an_abort_before_the_first_token_is_an_empty_interruption() -> None:
    found = result(_output([], [], "abort"))
    assert (found.token_ids, found.logprobs, found.spans, found.finish_reason) == ([], [], [], "interrupted")


@pytest.mark.parametrize(
    "output",
    [
        _output([5, 6], [(label(1, HASH), 0, 1)]),
        _output([5, 6], [(label(1, HASH), 1, 2)]),
        _output([5, 6], []),
        _output([5, 6], [(label(1, HASH), 0, 2)], logprobs=[-1.0]),
        _output([5, 6], [(label(1, HASH), 0, 2)], logged=[5, 7]),
        _output([5, 6, 7], [(label(1, HASH), 0, 1), (label(2, HASH), 2, 3)]),
    ],
)
def test_what_does_not_belong_together_is_an_error(output: Any) -> None:
    with pytest.raises(EngineError, match="do not belong together"):
        result(output)


@pytest.mark.parametrize("name", ["default", "7", "x:" + HASH, ":" + HASH])
def test_a_label_that_was_never_given_is_an_error(name: str) -> None:
    with pytest.raises(EngineError, match="no version that was loaded"):
        result(_output([5], [(name, 0, 1)]))


def test_an_unknown_end_is_an_error() -> None:
    with pytest.raises(EngineError, match="'error'"):
        result(_output([5], [(label(1, HASH), 0, 1)], "error"))


def test_a_prompt_has_one_score_less_than_ids() -> None:
    scored = SimpleNamespace(prompt_logprobs=SimpleNamespace(logprobs=[-1.0, -2.0]))
    assert prompt_scores(scored, 3) == [-1.0, -2.0]
    with pytest.raises(EngineError, match="2 log-probs for a prompt of 4"):
        prompt_scores(scored, 4)


@pytest.mark.parametrize(
    ("ids", "more", "match"),
    [
        ([], {}, "at least one token"),
        ([3] * 16, {}, "contextLength 16"),
        ([3, 99], {}, "vocabulary of 20"),
        ([3, -1], {}, "vocabulary of 20"),
        ([3], {"max_tokens": 0}, "max_tokens"),
        ([3], {"temperature": 0.0}, "temperature"),
    ],
)
def test_requests_vllm_would_clamp_or_die_of_are_refused(ids: list[int], more: dict[str, Any], match: str) -> None:
    fields: dict[str, Any] = {"session": "s", "token_ids": ids, "max_tokens": 4, "stop_token_ids": [], **more}
    with pytest.raises(EngineError, match=match):
        check(GenerateRequest(**fields), 16, 20)
