"""The KV cache of the torch engine: preallocated slots behind transformers' Cache. Owns the tensors and where a step reads and writes.

Layout of each layer: keys and values [slots, kv heads, context + 1, head size]; the last column takes what nobody may read (padding).
Does not own which token is cached where (`torch_slots.py`) nor masks.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


class Window:
    """Where one forward reads and writes.

    rows: slot of each batch row, int64 [rows]; None when they are exactly the slots 0..rows-1, which then are read without a copy.
    positions: column each new token is written to, int64 [rows, tokens]; padding goes to the trash column.
    length: columns [0, length) are read.
    """

    def __init__(self, rows: torch.Tensor, positions: torch.Tensor, length: int, contiguous: bool) -> None:
        self.rows = None if contiguous else rows
        self.count = rows.shape[0]
        self.write_rows = rows[:, None, None]
        self.write_columns = positions[:, None, :]
        self.length = length


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's slots; allocated at the first forward, when head count and sizes are known."""

    def __init__(self, slots: int, context: int) -> None:
        super().__init__()
        self.slots = slots
        self.columns = context + 1
        self.window: Window | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate for keys [rows, heads, tokens, size] and values alike."""
        heads = key_states.shape[1]
        with torch.inference_mode(False):
            self.keys = torch.zeros(self.slots, heads, self.columns, key_states.shape[-1], dtype=key_states.dtype)
            self.values = torch.zeros(self.slots, heads, self.columns, value_states.shape[-1], dtype=value_states.dtype)
        self.heads = torch.arange(heads)[None, :, None]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens, return what the rows may read: [rows, heads, length, size]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        window = self.window
        assert window is not None, "aim() comes before a forward"
        index = (window.write_rows, self.heads, window.write_columns)
        self.keys[index] = key_states
        self.values[index] = value_states
        if window.rows is None:
            return self.keys[: window.count, :, : window.length], self.values[: window.count, :, : window.length]
        keys = self.keys[:, :, : window.length].index_select(0, window.rows)
        return keys, self.values[:, :, : window.length].index_select(0, window.rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what is read; the engine gives its own 4D mask, models only look at the sizes."""
        return (self.window.length if self.window else query_length), 0

    def get_seq_length(self) -> int:
        """Columns read before this step's tokens; only a hint, the engine gives its own positions."""
        return 0

    def get_max_length(self) -> int:
        """Tokens a slot can hold."""
        return self.columns - 1


class SlotCache(Cache):  # type: ignore[misc]
    """One SlotLayer per decoder layer, all aimed at the same window."""

    def __init__(self, layers: int, slots: int, context: int) -> None:
        self.slot_layers = [SlotLayer(slots, context) for _ in range(layers)]
        super().__init__(layers=list(self.slot_layers))

    def aim(self, window: Window) -> None:
        """Use `window` for the next forward."""
        for layer in self.slot_layers:
            layer.window = window
