"""Old log-probs under the weights a model holds right now, leaving no trace on it.

Owns batching, eval mode and restoring it. Does not own which weights the model holds (`HeldVersion`), nor whether the result is to be
believed (`verify`).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asyncppo_runtime.algorithm.batch import TokenBatch, micro_batches
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.old_logprobs.interface import ForwardSettings


@dataclass(frozen=True)
class ScoreRequest:
    """A context and the spans [start, end) of it to score, 1 <= start < end <= len(token_ids)."""

    token_ids: Sequence[int]
    spans: Sequence[tuple[int, int]]


@contextmanager
def scoring(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards every submodule is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def score(model: nn.Module, requests: Sequence[ScoreRequest], forward: ForwardSettings) -> list[list[Tensor]]:
    """Per request and span: float [end - start], the log-prob of each of the span's tokens given all tokens before it.

    Requests are cut after their last span, sorted by length and batched by forward.token_budget (padding included). float32, float64 for a
    float64 model. Weights, buffers, gradients, random state and train/eval modes are left as they were.
    """
    wanted = [request for request in requests if request.spans]
    if not wanted:
        return [[] for _ in requests]
    device = next(model.parameters()).device
    ends = [max(end for _, end in request.spans) for request in wanted]
    order = sorted(range(len(wanted)), key=lambda i: ends[i], reverse=True)
    scores: dict[int, Tensor] = {}
    with scoring(model):
        for rows in _parts(order, ends, forward.token_budget):
            longest = ends[rows[0]]
            ids = torch.zeros(len(rows), longest, dtype=torch.int64)
            mask = torch.zeros(len(rows), longest, dtype=torch.bool)
            for place, row in enumerate(rows):
                ids[place, : ends[row]] = torch.tensor(wanted[row].token_ids[: ends[row]], dtype=torch.int64)
                for start, end in wanted[row].spans:
                    mask[place, start:end] = True
            lengths = torch.tensor([ends[row] for row in rows], device=device)
            found = forward_logprobs(model, ids.to(device), lengths, forward.temperature, mask=mask.to(device))
            for place, row in enumerate(rows):
                scores[row] = found.logprobs[place].cpu()
    answers = iter(
        [scores[row][start:end].clone() for start, end in request.spans] for row, request in enumerate(wanted)
    )
    return [next(answers) if request.spans else [] for request in requests]


def batch_logprobs(model: nn.Module, batch: TokenBatch, forward: ForwardSettings) -> Tensor:
    """float [B, T]: log-probs of the batch's loss tokens under the model's weights, 0 elsewhere; as `score` otherwise."""
    out = torch.zeros_like(batch.behavior_logprobs)
    with scoring(model):
        for part in micro_batches(batch, forward.token_budget):
            micro = part.batch
            found = forward_logprobs(model, micro.token_ids, micro.lengths, forward.temperature, mask=micro.loss_mask)
            out[part.rows, : micro.token_ids.shape[1]] = found.logprobs.to(out.dtype)
    return out


def prefix_logprobs(model: nn.Module, batch: TokenBatch, own: Tensor, forward: ForwardSettings) -> tuple[Tensor, int]:
    """Log-probs of the tokens `own` (bool [B, T]) with every row cut after its last own token.

    Returns float [B, T], 0 elsewhere, and the tokens the forwards took (without padding). Rows without own tokens take none.
    """
    out = torch.zeros_like(batch.behavior_logprobs)
    rows = torch.nonzero(own.any(-1)).squeeze(-1)
    if rows.numel() == 0:
        return out, 0
    positions = torch.arange(1, own.shape[1] + 1, device=own.device)
    ends = (own[rows] * positions).amax(-1)
    cut = dataclasses.replace(dataclasses.replace(batch, loss_mask=own).select(rows), lengths=ends)
    found = batch_logprobs(model, cut, forward)
    out[rows, : found.shape[1]] = found
    return out, int(ends.sum())


def _parts(order: Sequence[int], ends: Sequence[int], budget: int) -> list[list[int]]:
    parts: list[list[int]] = []
    for row in order:
        if parts and (len(parts[-1]) + 1) * ends[parts[-1][0]] <= budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts
