"""One request and its outcome in vLLM's words: sampling parameters out, ids, log-probs and version spans back. Pure.

Owns the version label that travels through vLLM with every token. Does not own when requests run (`vllm_engine.py`).
"""

from typing import Any, Literal

from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateRequest, GenerateResult, Span
from asyncppo_runtime.rollout.engines.vllm_settings import LEAST_TEMPERATURE

FINISH: dict[str, Literal["stop", "length", "interrupted"]] = {
    "stop": "stop",
    "length": "length",
    "abort": "interrupted",
}


def label(version: int, weights_hash: str) -> str:
    """What vLLM is told its weights are called; it puts this on every token it samples."""
    return f"{version}:{weights_hash}"


def check(request: GenerateRequest, context: int, vocabulary: int) -> None:
    """Raises EngineError for what vLLM would refuse, clamp without a word, or die of."""
    count = len(request.token_ids)
    if not 0 < count < context:
        raise EngineError(
            f"a context of {count} tokens leaves no room in spec.sampling.contextLength {context}"
            if count
            else "a request needs at least one token of context"
        )
    if request.max_tokens < 1:
        raise EngineError("max_tokens must be at least 1")
    if request.temperature < LEAST_TEMPERATURE:
        raise EngineError(f"spec.sampling.temperature: vLLM samples at no less than {LEAST_TEMPERATURE:g}")
    check_ids(request.token_ids, vocabulary)


def check_ids(token_ids: list[int], vocabulary: int) -> None:
    """An id that is no row of the embedding would kill the engine core. Raises EngineError."""
    if min(token_ids) < 0 or max(token_ids) >= vocabulary:
        raise EngineError(f"a context holds ids outside the model's vocabulary of {vocabulary}")


def sampling_parameters(request: GenerateRequest, context: int) -> Any:
    """vLLM's SamplingParams: the sampled token's log-prob only, ids only, one answer at the end.

    `request.seed` is not passed on: seeded requests cost a generator each per step, and on the CPU one whose prefill is split kills
    the engine core (its generator cannot be wound back). The engine draws from a generator of its own.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=min(request.max_tokens, context - len(request.token_ids)),
        temperature=request.temperature,
        top_p=request.top_p,
        stop_token_ids=request.stop_token_ids,
        ignore_eos=True,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def scoring_parameters() -> Any:
    """SamplingParams of a request that is only about its prompt's log-probs; vLLM samples one token nevertheless."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=1,
        prompt_logprobs=0,
        flat_logprobs=True,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def result(output: Any) -> GenerateResult:
    """vLLM's RequestOutput as a GenerateResult. Raises EngineError when ids, log-probs and spans do not belong together."""
    completion = output.outputs[0]
    token_ids = list(completion.token_ids)
    logprobs = [float(value) for value in completion.logprobs.logprobs] if token_ids else []
    spans = [_span(span.version, span.start, span.end) for span in completion.weight_versions or []]
    covered = [(span.start, span.end) for span in spans]
    bounds = [0, *(end for _, end in covered)]
    if (
        len(logprobs) != len(token_ids)
        or (token_ids and list(completion.logprobs.token_ids) != token_ids)
        or bounds[-1] != len(token_ids)
        or [start for start, _ in covered] != bounds[:-1]
    ):
        raise EngineError(
            f"vLLM answered {len(token_ids)} ids, {len(logprobs)} log-probs and spans {covered}: they do not belong together"
        )
    reason = FINISH.get(completion.finish_reason or "")
    if reason is None:
        raise EngineError(f"vLLM ended a request with {completion.finish_reason!r}; its log has the cause")
    return GenerateResult(token_ids, logprobs, spans, reason)


def prompt_scores(output: Any, count: int) -> list[float]:
    """Log-probs of a prompt's ids [1:] from a scored RequestOutput; `count` ids in all."""
    scores = [float(value) for value in output.prompt_logprobs.logprobs]
    if len(scores) != count - 1:
        raise EngineError(f"vLLM gave {len(scores)} log-probs for a prompt of {count} ids")
    return scores


def _span(name: str, start: int, end: int) -> Span:
    version, colon, weights_hash = name.partition(":")
    if not colon or not version.isdecimal():
        raise EngineError(f"vLLM tagged tokens with {name!r}, which is no version that was loaded here")
    return Span(int(version), weights_hash, start, end)
