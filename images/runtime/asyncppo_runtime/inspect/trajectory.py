"""One trajectory of a ledger, token by token. Owns putting ids, log-probs, versions and mask side by side.

The mask is the training step's own (`algorithm.discrepancy`), asked again, not remembered.
"""

from collections.abc import Callable

import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.report.trajectories import SegmentView, TokenView, TrajectoryView
from asyncppo_runtime.algorithm.discrepancy import correct
from asyncppo_runtime.inspect.listing import line_of
from asyncppo_runtime.ledger.records import SegmentState, StoredTrajectory
from asyncppo_runtime.policy import PolicyTokenizer


def view_of(
    stored: StoredTrajectory,
    job: str,
    spec: AsyncPPOJobSpec,
    tokenizer: PolicyTokenizer,
    resident: Callable[[int], int | None],
) -> TrajectoryView:
    """Everything the ledger knows of one trajectory."""
    body = stored.trajectory
    return TrajectoryView(
        line=line_of(stored, resident),
        job=job,
        attempt=stored.attempt,
        turns=body.turns if body is not None else 0,
        error=body.error if body is not None else "",
        trained_version=stored.trained_version,
        text=_decode(tokenizer, body.token_ids) if body is not None else "",
        tokens=_tokens(stored, body.token_ids, spec, tokenizer) if body is not None else [],
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
    stored: StoredTrajectory, token_ids: list[int], spec: AsyncPPOJobSpec, tokenizer: PolicyTokenizer
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


def _decode(tokenizer: PolicyTokenizer, token_ids: list[int]) -> str:
    return str(tokenizer.hf.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
