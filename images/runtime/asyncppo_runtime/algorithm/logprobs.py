"""Log-probs of a causal LM's own tokens: one implementation for learner, exact scorer and audit.

Owns the alignment, the padding and which positions are computed. Does not own the kernel (`vocabulary`), nor which weights the model holds.
"""

from typing import Any

import torch
from torch import Tensor, nn

from asyncppo_runtime.algorithm.errors import UnsupportedModelError
from asyncppo_runtime.algorithm.vocabulary import Logprobs, logits_logprobs, token_logprobs

# Configuration fields by which models bend the logits after the output embedding; such a model's own forward makes the logits.
_BENT_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def forward_logprobs(
    model: nn.Module,
    token_ids: Tensor,
    lengths: Tensor,
    temperature: float = 1.0,
    with_entropy: bool = False,
    mask: Tensor | None = None,
) -> Logprobs:
    """Log-prob of each token given all tokens before it, under a transformers causal LM.

    token_ids: int64 [B, T], right-padded. lengths: int64 [B]. mask: bool [B, T] of the positions wanted (the loss mask); None: all
    of each trajectory. Returns [B, T] float32 (float64 for a float64 model): out[:, t] is for token t; 0 at t = 0, in the padding and
    outside the mask. Gradients flow unless the caller forbids them. Train or eval mode is the caller's.

    Raises UnsupportedModelError when the model has no output embedding.
    """
    positions = torch.arange(token_ids.shape[1], device=token_ids.device)
    present = positions < lengths[:, None]
    wanted = present if mask is None else present & mask
    targets = wanted[:, 1:]
    inputs: dict[str, Any] = {
        "input_ids": token_ids,
        "attention_mask": present.long(),
        "position_ids": positions.expand_as(token_ids),
        "use_cache": False,
    }
    ids = token_ids[:, 1:][targets]
    if _bends_logits(model):
        logits = model(**inputs).logits[:, :-1][targets]
        values = logits_logprobs(logits, ids, temperature, with_entropy=with_entropy)
    else:
        head = _output_embedding(model)
        hidden = _base_model(model)(**inputs).last_hidden_state[:, :-1][targets]
        bias = getattr(head, "bias", None)
        values = token_logprobs(hidden, head.weight, ids, temperature, bias=bias, with_entropy=with_entropy)
    entropy = None if values.entropy is None else _spread(values.entropy, targets)
    return Logprobs(_spread(values.logprobs, targets), entropy)


def _spread(values: Tensor, targets: Tensor) -> Tensor:
    """Values [N] back to their places: [B, T] with a leading column of zeros."""
    out = torch.zeros(targets.shape, dtype=values.dtype, device=values.device).masked_scatter(targets, values)
    return nn.functional.pad(out, (1, 0))


def _output_embedding(model: nn.Module) -> nn.Linear:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if not isinstance(head, nn.Linear):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no linear output embedding; use a transformers causal LM (AutoModelForCausalLM)"
        )
    return head


def _base_model(model: nn.Module) -> nn.Module:
    base = getattr(model, "base_model", None)
    if not isinstance(base, nn.Module) or base is model:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no base model apart from its output embedding; use a transformers causal LM"
        )
    return base


def _bends_logits(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    return any(getattr(config, name, None) not in (None, 1, 1.0) for name in _BENT_LOGITS)
