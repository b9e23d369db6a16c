"""Tiny models, trajectories and loss inputs for the algorithm's tests."""

import random

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from asyncppo.api.training import DiscrepancyControl, DiscrepancySpec, DiscrepancyWeight
from asyncppo_runtime.algorithm.batch import SegmentInput, TokenBatch, TrajectoryInput, build_batch
from asyncppo_runtime.algorithm.discrepancy import correct
from asyncppo_runtime.algorithm.losses import LossInputs

torch.set_num_threads(1)

VOCABULARY = 32
NO_CONTROL = DiscrepancySpec(control=DiscrepancyControl.NONE)


def tiny_model(
    seed: int = 0, dtype: torch.dtype = torch.float64, tied: bool = False, spread: float = 0.3
) -> LlamaForCausalLM:
    """Hidden 32, 2 layers, vocabulary 32, weights with enough spread that policies differ visibly."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=spread,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(dtype).eval()


def perturbed(model: nn.Module, seed: int, size: float = 0.02) -> dict[str, Tensor]:
    """The model's tensors moved by a little noise: the next version."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: parameter.detach()
        + size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
        for name, parameter in model.named_parameters()
    }


def trajectory(
    versions: list[int], seed: int = 0, segment_tokens: int = 2, gap: int = 1, group: int = 0
) -> TrajectoryInput:
    """A prompt of 3 tokens, then one segment per entry of `versions` with `gap` environment tokens between them, and one at the end."""
    source = random.Random(seed)
    position, segments = 3, []
    for version in versions:
        end = position + segment_tokens
        behavior = [source.uniform(-4.0, -0.1) for _ in range(segment_tokens)]
        segments.append(SegmentInput(position, end, version, behavior))
        position = end + gap
    ids = [source.randrange(VOCABULARY) for _ in range(position)]
    return TrajectoryInput(ids, segments, reward=source.random(), group=group)


def random_batch(
    seed: int, trajectories: int = 5, train_version: int = 6, dtype: torch.dtype = torch.float64
) -> TokenBatch:
    """Trajectories of different lengths and version spans, with advantages."""
    source = random.Random(seed)
    inputs = []
    for row in range(trajectories):
        count = source.randint(1, 4)
        versions = sorted(source.randint(train_version - 4, train_version) for _ in range(count))
        inputs.append(
            trajectory(versions, seed * 1000 + row, source.randint(1, 4), source.randint(0, 2), group=row // 2)
        )
    batch = build_batch(inputs, train_version, dtype)
    generator = torch.Generator().manual_seed(seed)
    return batch.with_advantages(torch.randn(batch.token_ids.shape, generator=generator, dtype=dtype))


def control(
    kind: DiscrepancyControl, bound: float = 1.25, cap: float = 2.0, weight: str = "Importance"
) -> DiscrepancySpec:
    """A discrepancy spec in one line."""
    return DiscrepancySpec(control=kind, bound=bound, cap=cap, weight=DiscrepancyWeight(weight))


def loss_inputs(
    policy: Tensor,
    anchor: Tensor,
    behavior: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    spec: DiscrepancySpec = NO_CONTROL,
) -> LossInputs:
    """Loss inputs with the correction applied; everything counts where no mask is given."""
    kept = torch.ones_like(policy, dtype=torch.bool) if mask is None else mask
    return LossInputs(policy, anchor, advantages, kept, correct(spec, anchor, behavior, kept))


def row(*values: float) -> Tensor:
    """float64 [1, n]."""
    return torch.tensor([values], dtype=torch.float64)
