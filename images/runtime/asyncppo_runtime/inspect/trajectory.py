"""One trajectory of a ledger, token by token. Owns putting ids, log-probs, versions and mask side by side.

The mask is the training step's own (`algorithm.discrepancy`), asked again, not remembered.
"""

from collections.abc import Callable
from itertools import groupby

import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.report.trajectories import RunView, SegmentView, TokenView, TrajectoryView
from asyncppo_runtime.algorithm.discrepancy import correct
from asyncppo_runtime.inspect.listing import line_of
from asyncppo_runtime.ledger.records import SegmentState, StoredTrajectory
from asyncppo_runtime.policy import PolicyTokenizer


def view_of(
    stored: StoredTrajectory,
    job: str,
    spec: AsyncPPOJobSpec,
    tokenizer: PolicyTokenizer | None,
    resident: Callable[[int], int | None],
) -> TrajectoryView:
    """Everything the ledger knows of one trajectory; without a tokenizer its ids stay ids."""
    body = stored.trajectory
    tokens = _tokens(stored, body.token_ids, spec, tokenizer) if body is not None else []
    return TrajectoryView(
        line=line_of(stored, resident),
        job=job,
        attempt=stored.attempt,
        turns=body.turns if body is not None else 0,
        error=stored.error,
        trained_version=stored.trained_version,
        text=_decode(tokenizer, body.token_ids) if body is not None else "",
        runs=_runs(tokens, tokenizer) if tokenizer is not None else [],
        tokens=tokens,
        segments=[
            SegmentView(
                index=segment.key.index,
                start=segment.start,
                end=segment.end,
                version=segment.version,
                weights_hash=segment.weights_hash,
                state=str(segment.state),
                reason=segment.reason,
                scorer_version=segment.scorer_version,
                scorer_hash=segment.scorer_hash,
                kind=segment.kind,
            )
            for segment in stored.segments
        ],
        pruned=body is None,
    )


def _tokens(
    stored: StoredTrajectory, token_ids: list[int], spec: AsyncPPOJobSpec, tokenizer: PolicyTokenizer | None
) -> list[TokenView]:
    mask = loss_mask(stored, len(token_ids), spec)
    tokens = [TokenView(id=token, text=_decode(tokenizer, [token]), role="environment") for token in token_ids]
    for segment in stored.segments:
        for at in range(segment.start, segment.end):
            offset = at - segment.start
            behavior, old = segment.behavior_logprobs, segment.old_logprobs
            tokens[at] = TokenView(
                id=token_ids[at],
                text=tokens[at].text,
                role="model",
                segment=segment.key.index,
                version=segment.version,
                behavior_logprob=None if behavior is None else float(behavior[offset]),
                old_logprob=None if old is None else float(old[offset]),
                mask=mask[at],
            )
    return tokens


def _runs(tokens: list[TokenView], tokenizer: PolicyTokenizer) -> list[RunView]:
    """The text role by role. A tokenizer may write a token otherwise at the beginning of a text than within one, so each run is what the
    text gains by it; where that is not told apart (half a character at the border), it is the run on its own."""
    runs: list[RunView] = []
    ids, before = [token.id for token in tokens], ""
    start = 0
    for role, same in groupby(tokens, key=lambda token: token.role):
        end = start + len(list(same))
        whole = _decode(tokenizer, ids[:end])
        text = whole[len(before) :] if whole.startswith(before) else _decode(tokenizer, ids[start:end])
        runs.append(RunView(role=role, text=text))
        start, before = end, whole
    return runs


def loss_mask(stored: StoredTrajectory, length: int, spec: AsyncPPOJobSpec) -> list[bool]:
    """Per token of the context: whether the loss uses it."""
    old = torch.zeros(1, length, dtype=torch.float64)
    behavior = torch.zeros_like(old)
    scored = torch.zeros(1, length, dtype=torch.bool)
    for segment in stored.segments:
        if (
            segment.state is SegmentState.SCORED
            and segment.old_logprobs is not None
            and segment.behavior_logprobs is not None
        ):
            span = slice(segment.start, segment.end)
            old[0, span] = torch.from_numpy(segment.old_logprobs.copy())
            behavior[0, span] = torch.from_numpy(segment.behavior_logprobs.copy())
            scored[0, span] = True
    kept = correct(spec.algorithm.discrepancy, old, behavior, scored).mask[0]
    return [bool(token) for token in kept.tolist()]


def _decode(tokenizer: PolicyTokenizer | None, token_ids: list[int]) -> str:
    if tokenizer is None:
        return ""
    return str(tokenizer.hf.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
