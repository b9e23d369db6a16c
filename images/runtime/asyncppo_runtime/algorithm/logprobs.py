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
    value_head: nn.Linear | None = None,
) -> Logprobs:
    """Log-prob of each token given all tokens before it, under a transformers causal LM.

    token_ids: int64 [B, T], right-padded. lengths: int64 [B]. mask: bool [B, T] of the positions wanted (the loss mask); None: all
    of each trajectory. Returns [B, T] float32 (float64 for a float64 model): out[:, t] is for token t; 0 at t = 0, in the padding and
    outside the mask. value_head: also gives the value of the context before each token, from the hidden state that predicts it.
    Gradients flow unless the caller forbids them. Train or eval mode is the caller's.

    Raises UnsupportedModelError when the model has no output embedding.
    """
    inputs, targets = _inputs(token_ids, lengths, mask)
    ids = token_ids[:, 1:][targets]
    if _bends_logits(model):
        whole = model(**inputs, output_hidden_states=value_head is not None)
        found = logits_logprobs(whole.logits[:, :-1][targets], ids, temperature, with_entropy=with_entropy)
        hidden = whole.hidden_states[-1][:, :-1][targets] if value_head is not None else None
    else:
        head = output_embedding(model)
        hidden = _base_model(model)(**inputs).last_hidden_state[:, :-1][targets]
        bias = getattr(head, "bias", None)
        found = token_logprobs(hidden, head.weight, ids, temperature, bias=bias, with_entropy=with_entropy)
    entropy = None if found.entropy is None else _spread(found.entropy, targets)
    values = None if value_head is None or hidden is None else _spread(_values(value_head, hidden), targets)
    return Logprobs(_spread(found.logprobs, targets), entropy, values)


def forward_values(model: nn.Module, value_head: nn.Linear, token_ids: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
    """The values alone, [B, T], as `forward_logprobs` gives them with a value head."""
    inputs, targets = _inputs(token_ids, lengths, mask)
    hidden = _base_model(model)(**inputs).last_hidden_state[:, :-1][targets]
    return _spread(_values(value_head, hidden), targets)


def _values(value_head: nn.Linear, hidden: Tensor) -> Tensor:
    """[N, H] → [N], in at least float32."""
    values: Tensor = value_head(hidden).squeeze(-1)
    return values if values.dtype == torch.float64 else values.float()


def _inputs(token_ids: Tensor, lengths: Tensor, mask: Tensor | None) -> tuple[dict[str, Any], Tensor]:
    """The model's arguments, and which predictions are wanted: bool [B, T - 1], for the tokens from the second on."""
    positions = torch.arange(token_ids.shape[1], device=token_ids.device)
    present = positions < lengths[:, None]
    wanted = present if mask is None else present & mask
    inputs = {
        "input_ids": token_ids,
        "attention_mask": present.long(),
        "position_ids": positions.expand_as(token_ids),
        "use_cache": False,
    }
    return inputs, wanted[:, 1:]


def _spread(values: Tensor, targets: Tensor) -> Tensor:
    """Values [N] back to their places: [B, T] with a leading column of zeros."""
    out = torch.zeros(targets.shape, dtype=values.dtype, device=values.device).masked_scatter(targets, values)
    return nn.functional.pad(out, (1, 0))


def output_embedding(model: nn.Module) -> nn.Linear:
    """The layer that makes logits of hidden states. Raises UnsupportedModelError."""
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
