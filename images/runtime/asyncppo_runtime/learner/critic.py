"""The critic of GAE: one linear head on the policy's last hidden state. Owns the head and what it says of a batch.

Does not own the hidden states (`algorithm.logprobs`), its loss (`algorithm.value_loss`), nor the optimizer that trains it. The head is no
part of a policy version: engines never see it, a checkpoint keeps it.

The value of token t is of the context before it, as the token's log-prob is. Values are computed when a batch is consumed, by the
critic of that moment, so they are never stale; the environment's tokens between two turns are stepped over.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asyncppo.api.training import CriticSpec
from asyncppo_runtime.algorithm.advantages import GaeResult, gae, terminal_rewards, whiten
from asyncppo_runtime.algorithm.batch import TokenBatch, micro_batches
from asyncppo_runtime.algorithm.logprobs import forward_values, output_embedding
from asyncppo_runtime.learner.errors import CheckpointError
from asyncppo_runtime.old_logprobs.exact_scorer import scoring


@dataclass(frozen=True)
class Judgement:
    """All float [B, T], 0 outside the loss mask. values: at batch time. returns: the value targets. advantages: whitened over the
    batch's loss tokens, before any correction mask."""

    values: Tensor
    returns: Tensor
    advantages: Tensor

    def select(self, rows: Tensor, width: int) -> "Judgement":
        """Of some trajectories, cut to `width` tokens."""
        return Judgement(self.values[rows, :width], self.returns[rows, :width], self.advantages[rows, :width])


class Critic:
    """Begins as 0 everywhere: the first advantages are the returns."""

    def __init__(self, spec: CriticSpec, model: nn.Module) -> None:
        self.spec = spec
        output = output_embedding(model)
        self.head = nn.Linear(output.in_features, 1, dtype=output.weight.dtype, device=output.weight.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Weight and bias."""
        return list(self.head.parameters())

    def judge(self, model: nn.Module, batch: TokenBatch, token_budget: int) -> Judgement:
        """One forward over the batch without gradients, then GAE."""
        values = torch.zeros_like(batch.behavior_logprobs)
        with scoring(model):
            for part in micro_batches(batch, token_budget):
                micro = part.batch
                found = forward_values(model, self.head, micro.token_ids, micro.lengths, micro.loss_mask)
                values[part.rows, : micro.token_ids.shape[1]] = found.to(values.dtype)
        result: GaeResult = gae(
            terminal_rewards(batch.rewards.to(values.dtype), batch.loss_mask),
            values,
            batch.loss_mask,
            self.spec.gamma,
            self.spec.gae_lambda,
        )
        return Judgement(values, result.returns, whiten(result.advantages, batch.loss_mask))

    def tensors(self) -> dict[str, Tensor]:
        """Copies, for a checkpoint."""
        return {name: tensor.detach().clone() for name, tensor in self.head.state_dict().items()}

    def restore(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Take over a checkpoint's head. CheckpointError when it has none or another one."""
        own = self.head.state_dict()
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            raise CheckpointError(
                f"checkpoint {version} holds no critic that fits the manifest's model; resume with the manifest it was made with"
            )
        self.head.load_state_dict(dict(tensors))
