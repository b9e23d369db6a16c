"""Whether a model can be run exactly by the torch engine, and how many slots its memory gives. Owns these checks, at start.

Does not own what is checked: the forward (`torch_forward.py`), the cache (`torch_cache.py`).
"""

from typing import TYPE_CHECKING, Any

import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateRequest
from asyncppo_runtime.rollout.engines.torch_cache import SlotCache
from asyncppo_runtime.rollout.engines.torch_forward import last_logits
from asyncppo_runtime.rollout.engines.torch_slots import SlotTable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_TOKENS = 12
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.2}  # of the logits' spread over the vocabulary


def check_attention(config: Any, context: int) -> None:
    """Refuse layers that do not attend to the whole context: raises EngineError naming the kind of layer."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    kinds = set(getattr(text, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    if window and window >= context:
        kinds.discard("sliding_attention")
    if kinds - {"full_attention"}:
        raise EngineError(
            f"spec.model.pretrained: layers of kind {', '.join(sorted(kinds - {'full_attention'}))} cannot be run by the Torch engine "
            f"at spec.sampling.contextLength {context}; use spec.rollout.engine.type VLLM"
        )


def slot_count(model: "PreTrainedModel", spec: AsyncPPOJobSpec) -> int:
    """As many slots as episodes run at once, or as fit into kvCacheBytes. Raises EngineError when not even one fits."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    slot = token * (spec.sampling.context_length + 1)
    slots = min(spec.rollout.concurrency, spec.rollout.engine.kv_cache_bytes // slot)
    if slots < 1:
        raise EngineError(
            f"spec.rollout.engine.kvCacheBytes: {spec.rollout.engine.kv_cache_bytes} bytes hold no sequence of "
            f"{spec.sampling.context_length} tokens ({token} bytes each); give at least {slot}, or lower spec.sampling.contextLength"
        )
    return int(slots)


def check_forward(model: "PreTrainedModel", cache: SlotCache, table: SlotTable) -> None:
    """Feed a probe in ragged pieces through the cache and compare with one plain forward; raises EngineError when they differ.

    Catches attention that ignores the mask or positions it is given. The tables are left empty.
    """
    vocabulary = model.config.get_text_config().vocab_size
    count = min(PROBE_TOKENS, table.context)
    probe = [(7 * i + 3) % vocabulary for i in range(count)]
    try:
        plain = model(input_ids=torch.tensor([probe]), use_cache=False).logits[0, -1].double()
        cached = plain
        # two more rows of other lengths beside it, so that padding and idle rows are part of what is checked
        for end in sorted({1, min(4, count), count}):
            table.admit(GenerateRequest(session="probe", token_ids=probe[:end], max_tokens=1, stop_token_ids=[]))
            other = GenerateRequest(
                session="other", token_ids=probe[: max(1, end - 2)], max_tokens=1, stop_token_ids=[]
            )
            beside = table.admit(other)
            for group in table.plan():
                logits = last_logits(model, cache, table, group)
                table.fed(group)
                for row, slot in enumerate(group.slots):
                    if slot != beside:
                        cached = logits[row].double()
            table.active[:] = False
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise EngineError(f"spec.model: the Torch engine cannot run {type(model).__name__}: {error}") from error
    table.forget("probe")
    table.forget("other")
    spread = float(plain.std()) or 1.0
    worst = float((cached - plain).abs().max()) / spread
    if worst > TOLERANCE[model.dtype]:
        raise EngineError(
            f"spec.model: {type(model).__name__} computes differently with the Torch engine's cache than without "
            f"(off by {worst:.2g} of the logits' spread); use spec.rollout.engine.type VLLM"
        )
