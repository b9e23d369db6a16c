"""Chosen-token log-probs and entropy from hidden states, chunked over the vocabulary.

Owns the kernel: logits are computed tile by tile, folded into a running log-sum-exp, and recomputed in backward; the full
[tokens, vocabulary] log-softmax never exists. Does not own models (`logprobs`).

Per token with logits l = h W^T (+ b) / temperature, and p = softmax(l):
    logprob = l_y - lse(l)            d logprob / d l_j = 1[j = y] - p_j
    entropy = lse(l) - sum_j p_j l_j  d entropy / d l_j = -p_j (log p_j + entropy)

Backward needs the logits again. `kept_fraction` of the vocabulary's logits are kept from forward instead (exactly, as they are), the rest
costs one more product: memory for time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PLAIN_VOCABULARY = 8192
TILE_ELEMENTS = 1 << 21
ROW_BLOCK = 2048
KEPT_FRACTION = 0.5


@dataclass(frozen=True)
class Logprobs:
    """logprobs: log-probability of each chosen token; entropy: of the whole distribution (nats), or None where not asked for."""

    logprobs: Tensor
    entropy: Tensor | None = None


def token_logprobs(
    hidden: Tensor,
    lm_head_weight: Tensor,
    ids: Tensor,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    with_entropy: bool = False,
    chunked: bool | None = None,
    kept_fraction: float = KEPT_FRACTION,
) -> Logprobs:
    """Log-probs of `ids` under softmax((hidden @ lm_head_weight^T + bias) / temperature).

    hidden: float [N, H]. lm_head_weight: float [V, H]. ids: int64 [N]. Returns [N] in float32 (float64 for float64 input), the
    products in the inputs' dtype. chunked: None chunks vocabularies above PLAIN_VOCABULARY; the choice depends on the vocabulary
    alone, so that learner, scorer and audit take the same path. kept_fraction in [0, 1]: see the module.
    """
    if chunked is None:
        chunked = lm_head_weight.shape[0] > PLAIN_VOCABULARY
    if not chunked:
        logits = torch.nn.functional.linear(hidden, lm_head_weight, bias)
        return logits_logprobs(logits, ids, temperature, with_entropy=with_entropy)
    logprobs, entropy = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, lm_head_weight, bias, ids, 1.0 / temperature, with_entropy, kept_fraction
    )
    return Logprobs(logprobs, entropy if with_entropy else None)


def logits_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0, *, with_entropy: bool = False) -> Logprobs:
    """The plain path: log-softmax of logits [N, V] at `ids` [N], in float32 (float64 stays)."""
    scaled = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    distribution = torch.log_softmax(scaled, dim=-1)
    chosen = distribution.gather(-1, ids[:, None]).squeeze(-1)
    entropy = -(distribution.exp() * distribution).sum(-1) if with_entropy else None
    return Logprobs(chosen, entropy)


class _Tiles:
    """The tiling of the [N, V] logits and the products on one tile. Vocabulary tiles are the outer loop, row blocks the inner one."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> None:
        self.hidden, self.weight, self.bias, self.scale = hidden, weight, bias, scale
        self.wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        tokens, vocabulary = hidden.shape[0], weight.shape[0]
        self._rows = max(1, min(tokens, ROW_BLOCK))
        self._columns = max(1, min(vocabulary, max(256, TILE_ELEMENTS // self._rows)))
        self._logits = hidden.new_empty(self._rows * self._columns, dtype=self.wide)
        self._scratch = torch.empty_like(self._logits)

    def columns(self) -> list[slice]:
        """The vocabulary's tiles."""
        total = self.weight.shape[0]
        return [slice(start, min(start + self._columns, total)) for start in range(0, total, self._columns)]

    def rows(self) -> list[slice]:
        """The tokens' blocks."""
        total = self.hidden.shape[0]
        return [slice(start, min(start + self._rows, total)) for start in range(0, total, self._rows)]

    def logits(self, rows: slice, columns: slice, keep: bool = False) -> Tensor:
        """The tile's logits, [n, c] in `wide`; in a buffer that the next call reuses unless `keep`."""
        hidden, weight = self.hidden[rows], self.weight[columns]
        if hidden.dtype == self.wide:
            shape = (hidden.shape[0], weight.shape[0])
            out = hidden.new_empty(shape) if keep else _view(self._logits, shape)
            torch.mm(hidden, weight.t(), out=out)
        else:
            out = torch.mm(hidden, weight.t()).to(self.wide)
        if self.bias is not None:
            out += self.bias[columns]
        if self.scale != 1.0:
            out *= self.scale
        return out

    def scratch(self, like: Tensor) -> Tensor:
        """A second buffer of a tile's shape."""
        return _view(self._scratch, tuple(like.shape))


class _ChunkedLogprobs(torch.autograd.Function):
    """The kernel; see the module. Sums in float32 (float64 for float64 inputs); gradients in the inputs' dtype."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        scale: float,
        with_entropy: bool,
        kept_fraction: float,
    ) -> tuple[Tensor, Tensor]:
        tiles = _Tiles(hidden, weight, bias, scale)
        peak = torch.full((hidden.shape[0],), -torch.inf, dtype=tiles.wide, device=hidden.device)
        total, moment, chosen = torch.zeros_like(peak), torch.zeros_like(peak), torch.zeros_like(peak)
        keep_until = int(kept_fraction * weight.shape[0]) if any(ctx.needs_input_grad) else 0
        kept: dict[tuple[int, int], Tensor] = {}
        for columns in tiles.columns():
            for rows in tiles.rows():
                keep = columns.stop <= keep_until
                logits = tiles.logits(rows, columns, keep)
                if keep:
                    kept[rows.start, columns.start] = logits
                inside, local = _locate(ids[rows], columns)
                chosen[rows] = torch.where(inside, logits.gather(1, local[:, None]).squeeze(1), chosen[rows])
                higher = torch.maximum(peak[rows], logits.amax(1))
                shrink = (peak[rows] - higher).exp_()
                exponentials = torch.sub(logits, higher[:, None], out=tiles.scratch(logits)).exp_()
                total[rows] = total[rows] * shrink + exponentials.sum(1)
                if with_entropy:
                    moment[rows] = moment[rows] * shrink + exponentials.mul_(logits).sum(1)
                peak[rows] = higher
        lse = peak + total.log()
        entropy = lse - moment / total if with_entropy else torch.zeros_like(lse)
        ctx.save_for_backward(hidden, weight, bias, ids, lse, entropy)
        ctx.kept, ctx.scale, ctx.with_entropy = kept, scale, with_entropy
        return chosen - lse, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, lse, entropy = ctx.saved_tensors
        tiles = _Tiles(hidden, weight, bias, ctx.scale)
        d_hidden = torch.zeros_like(hidden, dtype=tiles.wide) if ctx.needs_input_grad[0] else None
        d_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=tiles.wide) if bias is not None and ctx.needs_input_grad[2] else None
        for columns in tiles.columns():
            d_tile: Tensor | None = None
            for rows in tiles.rows():
                logits = ctx.kept.pop((rows.start, columns.start), None)
                if logits is None:
                    logits = tiles.logits(rows, columns)
                # logits become log p, then d loss / d logits
                logits.sub_(lse[rows, None])
                if ctx.with_entropy:
                    p = torch.exp(logits, out=tiles.scratch(logits))
                    logits.add_(entropy[rows, None]).mul_(-grad_entropy[rows, None]).sub_(grad_logprobs[rows, None])
                    d_logits = logits.mul_(p)
                else:
                    d_logits = logits.exp_().mul_(-grad_logprobs[rows, None])
                inside, local = _locate(ids[rows], columns)
                d_logits.scatter_add_(1, local[:, None], torch.where(inside, grad_logprobs[rows], 0.0)[:, None])
                if d_bias is not None:
                    d_bias[columns] += d_logits.sum(0) * ctx.scale
                d_logits = d_logits.to(hidden.dtype)
                if d_hidden is not None:
                    _add_product(d_hidden[rows], d_logits, weight[columns])
                if d_weight is not None and d_tile is None:
                    d_tile = torch.mm(d_logits.t(), hidden[rows]).to(tiles.wide)
                elif d_tile is not None:
                    _add_product(d_tile, d_logits.t(), hidden[rows])
            if d_weight is not None:
                d_weight[columns] = 0.0 if d_tile is None else d_tile.mul_(ctx.scale)
        d_hidden = None if d_hidden is None else d_hidden.mul_(ctx.scale).to(hidden.dtype)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None


def _view(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    return buffer[: shape[0] * shape[1]].view(shape)


def _locate(ids: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Which ids fall into the tile, and their place in it (0 where not)."""
    inside = (ids >= columns.start) & (ids < columns.stop)
    return inside, torch.where(inside, ids - columns.start, 0)


def _add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """out += left @ right, out in the wide dtype."""
    if left.dtype == out.dtype:
        out.addmm_(left, right)
    else:
        out.add_(torch.mm(left, right))
