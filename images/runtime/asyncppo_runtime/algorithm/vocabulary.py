"""Chosen-token log-probs and entropy from hidden states, chunked over the vocabulary.

Owns the kernel: logits are computed tile by tile, folded into a running log-sum-exp, and recomputed in backward; the full
[tokens, vocabulary] log-softmax never exists. Does not own models (`logprobs`).

Per token with logits l = h W^T (+ b) / temperature, and p = softmax(l):
    logprob = l_y - lse(l)            d logprob / d l_j = 1[j = y] - p_j
    entropy = lse(l) - sum_j p_j l_j  d entropy / d l_j = -p_j (log p_j + entropy)

Backward needs every tile again. For `kept_fraction` of the vocabulary forward keeps what it has (logits, or their exponentials when no
entropy is asked for), in full precision; the rest costs one more product: memory for time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PLAIN_VOCABULARY = 8192
TILE_ELEMENTS = 1 << 21
ROW_BLOCK = 2048
KEPT_FRACTION = 0.7


@dataclass(frozen=True)
class Logprobs:
    """logprobs: log-probability of each chosen token. entropy: of the whole distribution (nats); values: of the contexts before the
    tokens, by a critic's head. None where not asked for."""

    logprobs: Tensor
    entropy: Tensor | None = None
    values: Tensor | None = None


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
    wide = logits if logits.dtype == torch.float64 else logits.float()
    distribution = torch.log_softmax(wide if temperature == 1.0 else wide / temperature, dim=-1)
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

    def weight_gradient(self, d_weight: Tensor, columns: slice) -> Tensor:
        """Where the tile's part of d_weight is summed up: its own place, or a wide buffer to be rounded once at the end."""
        part = d_weight[columns]
        return part if part.dtype == self.wide else torch.empty_like(part, dtype=self.wide)

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
        kept: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        for columns in tiles.columns():
            for rows in tiles.rows():
                keep = columns.stop <= keep_until
                logits = tiles.logits(rows, columns, keep and with_entropy)
                inside, local = _locate(ids[rows], columns)
                chosen[rows] = torch.where(inside, logits.gather(1, local[:, None]).squeeze(1), chosen[rows])
                higher = torch.maximum(peak[rows], logits.amax(1))
                shrink = (peak[rows] - higher).exp_()
                room = torch.empty_like(logits) if keep and not with_entropy else tiles.scratch(logits)
                exponentials = torch.sub(logits, higher[:, None], out=room).exp_()
                if keep:
                    kept[rows.start, columns.start] = (logits, None) if with_entropy else (exponentials, higher)
                total[rows] = total[rows] * shrink + exponentials.sum(1)
                if with_entropy:
                    moment[rows] = moment[rows] * shrink + torch.linalg.vecdot(exponentials, logits)
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
        # Without entropy d logits = -g (p - onehot) row by row: g is taken out of the tiles and put on the narrow side of each product.
        # In full precision so are the onehot and what makes p of a kept exponential: no pass over a kept tile is needed but the products.
        # In a narrower dtype p - 1 of a confident token must be formed before it is rounded.
        row_factor = None if ctx.with_entropy else -grad_logprobs[:, None]
        apart = row_factor is not None and hidden.dtype == tiles.wide
        source = hidden if row_factor is None else (hidden * row_factor).to(hidden.dtype)
        d_hidden = torch.zeros_like(hidden, dtype=tiles.wide) if ctx.needs_input_grad[0] else None
        d_weight = (
            (torch.empty_like if hidden.shape[0] else torch.zeros_like)(weight) if ctx.needs_input_grad[1] else None
        )
        d_bias = torch.zeros_like(bias, dtype=tiles.wide) if bias is not None and ctx.needs_input_grad[2] else None
        for columns in tiles.columns() if hidden.shape[0] else ():
            d_tile = None if d_weight is None else tiles.weight_gradient(d_weight, columns)
            for rows in tiles.rows():
                tile, height = ctx.kept.pop((rows.start, columns.start), (None, None))
                if tile is None:
                    tile = tiles.logits(rows, columns)
                inside, local = _locate(ids[rows], columns)
                narrow = source[rows]
                share = None
                if row_factor is None:
                    p = torch.sub(tile, lse[rows, None], out=tiles.scratch(tile)).exp_()
                    slope = -grad_entropy[rows, None]
                    level = slope * (entropy[rows, None] - lse[rows, None]) - grad_logprobs[rows, None]
                    d_logits = torch.addcmul(level, tile, slope, out=tile).mul_(p)
                    d_logits.scatter_add_(1, local[:, None], torch.where(inside, grad_logprobs[rows], 0.0)[:, None])
                    if d_bias is not None:
                        d_bias[columns] += d_logits.sum(0)
                else:
                    unit = lse[rows, None]
                    if height is None:
                        d_logits = tile.sub_(unit).exp_()
                    elif apart:
                        d_logits, share = tile, (height[:, None] - unit).exp_()
                        narrow = narrow * share
                    else:
                        d_logits = tile.mul_((height[:, None] - unit).exp_())
                    if not apart:
                        d_logits.scatter_add_(
                            1, local[:, None], torch.where(inside, unit.new_tensor(-1.0), 0.0)[:, None]
                        )
                    if d_bias is not None:
                        factor = row_factor[rows] if share is None else row_factor[rows] * share
                        d_bias[columns] += d_logits.t() @ factor[:, 0]
                        if apart:
                            d_bias[columns].index_add_(0, local[inside], row_factor[rows][inside, 0], alpha=-1.0)
                d_logits = d_logits.to(hidden.dtype)
                if d_hidden is not None:
                    _add_product(d_hidden[rows], d_logits, weight[columns], share)
                if d_tile is not None:
                    _add_product(d_tile, d_logits.t(), narrow, fresh=rows.start == 0)
                    if apart:
                        d_tile.index_add_(0, local[inside], source[rows][inside], alpha=-1.0)
            if d_weight is not None and d_tile is not None and d_tile.dtype != d_weight.dtype:
                d_weight[columns] = d_tile
        if d_hidden is not None and apart:
            d_hidden -= weight[ids]
        # logits are products times scale: one factor for all gradients
        if d_weight is not None and ctx.scale != 1.0:
            d_weight.mul_(ctx.scale)
        if d_bias is not None:
            d_bias = d_bias.mul_(ctx.scale).to(bias.dtype)
        if d_hidden is not None:
            d_hidden = (d_hidden.mul_(ctx.scale) if row_factor is None else d_hidden.mul_(row_factor * ctx.scale)).to(
                hidden.dtype
            )
        return d_hidden, d_weight, d_bias, None, None, None, None


def _view(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    return buffer[: shape[0] * shape[1]].view(shape)


def _locate(ids: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Which ids fall into the tile, and their place in it (0 where not)."""
    inside = (ids >= columns.start) & (ids < columns.stop)
    return inside, torch.where(inside, ids - columns.start, 0)


def _add_product(out: Tensor, left: Tensor, right: Tensor, share: Tensor | None = None, fresh: bool = False) -> None:
    """out += share * (left @ right), `share` [rows, 1] (None: 1); fresh: out = left @ right. out in the wide dtype."""
    if share is not None:
        out.addcmul_(torch.mm(left, right), share)
    elif left.dtype == out.dtype:
        out.addmm_(left, right, beta=0.0 if fresh else 1.0)
    elif fresh:
        out.copy_(torch.mm(left, right))
    else:
        out.add_(torch.mm(left, right))
