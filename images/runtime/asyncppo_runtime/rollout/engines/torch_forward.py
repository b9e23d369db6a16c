"""One forward over a group of slots, and sampling from it. Owns masks, positions, and the distribution sampled from.

Does not own which rows are fed (`torch_slots.py`), where KV lies (`torch_cache.py`), nor when (`torch_engine.py`).
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from asyncppo_runtime.rollout.engines.interface import EngineError
from asyncppo_runtime.rollout.engines.torch_cache import SlotCache, Window
from asyncppo_runtime.rollout.engines.torch_slots import Floats, Group, Ints, SlotTable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DENSE = 0.75  # share of active rows from which reading all low slots in place beats copying the active ones out


def last_logits(model: "PreTrainedModel", cache: SlotCache, table: SlotTable, group: Group) -> torch.Tensor:
    """Feed the group's pending tokens; logits after the last token of each row, [rows, vocabulary], float32 (float64 stays).

    Rows are padded on the left so that the last column is every row's last token; padding writes to the trash column.
    """
    feed, chosen = _dense(group, table)
    first = table.cached[feed.slots]
    column = np.arange(feed.width, dtype=np.int64)[None, :] - (feed.width - feed.counts)[:, None]
    real = column >= 0
    position = np.where(real, first[:, None] + column, 0)
    ids = np.where(real, table.ids[feed.slots[:, None], position], 0)
    length = int((first + feed.counts).max())
    positions = torch.from_numpy(position)
    write = torch.from_numpy(np.where(real, position, table.context))
    slots = torch.from_numpy(feed.slots)
    contiguous = int(feed.slots[-1]) == feed.slots.size - 1
    cache.aim(Window(slots, write, length, contiguous))
    readable = torch.arange(length)[None, None, None, :] <= positions[:, None, :, None]
    logits: torch.Tensor = model(
        input_ids=torch.from_numpy(ids),
        attention_mask=_additive(readable, model.dtype),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    if chosen is not None:
        logits = logits[torch.from_numpy(chosen)]
    return logits if logits.dtype == torch.float64 else logits.float()


def sample(logits: torch.Tensor, temperature: Floats, uniforms: Floats) -> tuple[Ints, Floats]:
    """Draw one token per row from softmax(logits / temperature) by inverting its cumulative sum at `uniforms`.

    Returns tokens int64 [rows] and their log-probs under that very distribution, float64 [rows]. The sum runs in float64, so no
    token of probability 0 is ever drawn. Raises EngineError when logits are not finite.
    """
    scaled = logits / torch.from_numpy(temperature).to(logits.dtype)[:, None]
    logprobs = torch.log_softmax(scaled, dim=-1)
    cumulative = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1]
    # u * total may round up to total itself, past the last token
    target = torch.minimum(torch.from_numpy(uniforms) * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target[:, None], right=True)
    if not bool(torch.isfinite(total).all()):
        raise EngineError("the model's logits are not finite; the loaded weights are broken")
    chosen = logprobs.gather(1, tokens)
    return tokens[:, 0].numpy(), chosen[:, 0].double().numpy()


def sequence_logprobs(model: "PreTrainedModel", token_ids: list[int]) -> list[float]:
    """Log-probs of token_ids[1:] at temperature 1 by one plain forward without a cache."""
    ids = torch.tensor([token_ids])
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, :-1]
    logprobs = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
    return [float(x) for x in logprobs.gather(1, ids[0, 1:, None])[:, 0]]


def _dense(group: Group, table: SlotTable) -> tuple[Group, Ints | None]:
    """The rows really fed: the group's own, or all slots up to its highest where that saves copying their KV.

    The second value picks the group's rows out of those, None when they are the same. A row that is only along for the ride
    feeds nothing: all its columns are padding.
    """
    highest = int(group.slots[-1]) + 1
    if group.slots.size == highest or group.slots.size < DENSE * highest:
        return group, None
    counts = np.zeros(highest, np.int64)
    counts[group.slots] = group.counts
    return Group(np.arange(highest, dtype=np.int64), counts, group.width), group.slots


def _additive(readable: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Added to the attention scores; made once, where a boolean mask would be converted by every layer."""
    return torch.zeros_like(readable, dtype=dtype).masked_fill_(~readable, torch.finfo(dtype).min)
