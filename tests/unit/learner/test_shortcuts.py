"""No shortcut of a step changes what is learnt: the gradient with each of them on equals the gradient with all of them off.

The shortcuts: trajectories without a gradient take no forward; micro-batches; log-probs of the loss tokens only; entropy taken or not
while its coefficient is 0; the kernel that never holds the whole vocabulary. What scoring saves (segments of one trajectory share a
forward, cut after the last of them) is held against plain forwards in `tests/unit/old_logprobs/test_strategies.py`.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.api.builders import spec as make_spec
from torch import Tensor

from asyncppo.api.correction import Strategy
from asyncppo.api.training import Advantage, DiscrepancyControl, Loss
from asyncppo.wire.experience import Trajectory
from asyncppo_runtime.algorithm import vocabulary
from asyncppo_runtime.algorithm.batch import NO_VERSION, TokenBatch
from asyncppo_runtime.learner import trainer as module
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import LeaseState, SegmentKey, SegmentState, StoredSegment, StoredTrajectory

torch.set_num_threads(1)

RESIDENT = 4
BATCHES = 2

# Every kind of group that a batch may hold: no variance (1/3 has a mean that is not 1/3 in binary), all alike but one, a member whose
# reward is the mean itself, a group of one. None: rewards at random.
GROUPS: list[list[float] | None] = [
    [1.0] * 3,
    [0.0] * 3,
    [1 / 3] * 3,
    [0.0, 0.5, 1.0],
    [1.0, 0.0, 0.0],
    [0.7],
    None,
    None,
]


def segment(source: random.Random, lease: int, index: int, start: int, tokens: int, version: int, exact: bool) -> Any:
    behavior = np.array([source.uniform(-4.0, -0.1) for _ in range(tokens)])
    return StoredSegment(
        key=SegmentKey(lease, index, f"{lease}/{index}"),
        start=start,
        end=start + tokens,
        version=version,
        weights_hash="",
        state=SegmentState.SCORED if exact else SegmentState.UNSCORED,
        reason="",
        behavior_logprobs=behavior,
        old_logprobs=behavior + np.array([source.gauss(0.0, 0.2) for _ in range(tokens)]) if exact else None,
        scorer_version=version if exact else NO_VERSION,
        scorer_hash="",
        kind="",
    )


def stored(source: random.Random, words: int, group: int, lease: int, reward: float, exact: bool) -> StoredTrajectory:
    """A prompt, then up to three segments of versions that go up, with the environment's tokens between; now and then none at all, or a
    single token."""
    position, segments = source.randint(1, 3), []
    versions = sorted(source.randint(1, RESIDENT) for _ in range(source.choice([0, 1, 1, 2, 3])))
    for index, version in enumerate(versions):
        tokens = 1 if len(versions) == 1 and source.random() < 0.5 else source.randint(1, 4)
        segments.append(segment(source, lease, index, position, tokens, version, exact))
        position += tokens + source.randint(0, 2)
    ids = [source.randrange(words) for _ in range(position)]
    sent = Trajectory(lease_id=lease, group_id=group, token_ids=ids, segments=[], finished=True, reward=reward)
    return StoredTrajectory(
        lease, group, 0, 0, "r0", LeaseState.RECEIVED, None, "", reward, "done", len(ids), -1, sent, segments
    )


def batch(seed: int, words: int, exact: bool) -> list[list[StoredTrajectory]]:
    source = random.Random(seed)
    leases = itertools.count()
    made = []
    for group, fixed in enumerate(source.sample(GROUPS, source.randint(1, 5))):
        rewards = fixed or [source.choice([0.0, 1.0, source.gauss(0.0, 1.0)]) for _ in range(source.randint(2, 4))]
        made.append([stored(source, words, group, next(leases), reward, exact) for reward in rewards])
    if not any(one.segments for group in made for one in group):
        return batch(seed + 10_000, words, exact)
    return made


def trainer_of(strategy: Strategy, advantage: Advantage, loss: Loss, source: random.Random) -> Trainer:
    """A policy, a reference and an average of weights that all differ; the rest of the settings at random."""
    alone = strategy is Strategy.ROLLOUT
    control = source.choice(
        [DiscrepancyControl.TOKEN_MASK, DiscrepancyControl.NONE] if alone else list(DiscrepancyControl)
    )
    critic = {"algorithm.critic": {}} if advantage is Advantage.GAE else {}
    made = Trainer(
        make_spec(
            {
                "model.builtin": {"hiddenSize": 8, "intermediateSize": 8, "layers": 1, "heads": 2},
                "oldLogits.strategy": strategy.value,
                "algorithm.advantage": advantage.value,
                "algorithm.loss": loss.value,
                "algorithm.normalization": source.choice(["TokenMean", "SequenceMean"]),
                "algorithm.entropyCoefficient": source.choice([0.0, 0.0, 0.01]),
                "algorithm.klCoefficient": source.choice([0.0, 0.0, 0.02]),
                "algorithm.discrepancy": {"control": control.value},
                "optimizer.precision": "Float64",
                "optimizer.microBatchTokens": 24,
                "sampling.temperature": 0.8,
            }
            | critic
        )
    )
    made.published(0)
    moved = [*made.model.parameters(), *(made.critic.parameters if made.critic else [])]
    generator = torch.Generator().manual_seed(source.randrange(10**6))
    with torch.no_grad():
        for parameter in moved:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


# --- each shortcut, on its own ---------------------------------------------------------------------------------------------
def everyone(self: Trainer, rows: TokenBatch) -> Tensor:
    """No trajectory is spared its forward."""
    return torch.ones_like(rows.lengths, dtype=torch.bool)


def every_position(**fixed: Any) -> Callable[..., Any]:
    """Log-probs of all positions of a row, whoever sampled them."""
    real = module.forward_logprobs

    def forward(*arguments: Any, mask: Tensor | None = None, **others: Any) -> Any:
        return real(*arguments, **{**others, **fixed})

    return forward


@contextmanager
def only(shortcut: str, trainer: Trainer) -> Iterator[None]:
    """All shortcuts off but this one ("": all off)."""
    budget = trainer._spec.optimizer.micro_batch_tokens
    with pytest.MonkeyPatch.context() as patch:
        if shortcut != "spared":
            patch.setattr(Trainer, "_with_gradient", everyone)
        if shortcut != "micro-batches":
            budget = 10**6
        optimizer = trainer._spec.optimizer.model_copy(update={"micro_batch_tokens": budget})
        patch.setattr(trainer, "_spec", trainer._spec.model_copy(update={"optimizer": optimizer}))
        patch.setattr(vocabulary, "PLAIN_VOCABULARY", 0 if shortcut == "chunked" else 10**9)
        if shortcut == "no entropy" and not trainer._spec.algorithm.entropy_coefficient:
            patch.setattr(module, "forward_logprobs", every_position(with_entropy=False))
        elif shortcut != "loss tokens":
            patch.setattr(module, "forward_logprobs", every_position())
        yield


SHORTCUTS = ("spared", "micro-batches", "loss tokens", "no entropy", "chunked")


def gradients(trainer: Trainer, groups: list[list[StoredTrajectory]]) -> dict[str, Tensor]:
    """A copy per parameter. One without any is left out: the optimizer passes it over, which is not the same as a gradient of 0."""
    trainer.accumulate(groups, 0, RESIDENT)
    named = dict(trainer.model.named_parameters())
    if trainer.critic is not None:
        named |= {f"critic.{index}": parameter for index, parameter in enumerate(trainer.critic.parameters)}
    return {name: parameter.grad.clone() for name, parameter in named.items() if parameter.grad is not None}


@pytest.mark.parametrize("strategy", [one for one in Strategy if one is not Strategy.AUTO])
@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("advantage", list(Advantage))
def test_the_gradient_with_a_shortcut_is_the_gradient_without(
    advantage: Advantage, loss: Loss, strategy: Strategy
) -> None:
    source = random.Random(f"{advantage}/{loss}/{strategy}")
    trainer = trainer_of(strategy, advantage, loss, source)
    words = trainer.model.get_input_embeddings().num_embeddings
    for _ in range(BATCHES):
        seed = source.randrange(10**6)
        groups = batch(seed, words, strategy.exact)
        with only("", trainer):
            expected = gradients(trainer, groups)
        for shortcut in SHORTCUTS:
            with only(shortcut, trainer):
                found = gradients(trainer, groups)
            assert found.keys() == expected.keys(), (shortcut, seed)
            for name, gradient in expected.items():
                torch.testing.assert_close(
                    found[name],
                    gradient,
                    rtol=1e-9,
                    atol=1e-12,
                    msg=lambda text, at=(shortcut, seed, name): f"{at}: {text}",
                )


def test_reinforce_plus_plus_learns_from_groups_of_equal_rewards() -> None:
    """Baseline of the whole batch: all of one group right, all of the other wrong, is the strongest signal there is."""
    trainer = trainer_of(Strategy.SNAPSHOT, Advantage.REINFORCE_PLUS_PLUS, Loss.PPO, random.Random(0))
    source = random.Random(1)
    groups = [[stored(source, 8, group, 3 * group + i, float(group), True) for i in range(3)] for group in range(2)]
    made = trainer.accumulate(groups, 0, RESIDENT)
    assert made.metrics.zero_variance_groups == 2
    assert sum(float(p.grad.abs().sum()) for p in trainer.model.parameters() if p.grad is not None) > 1e-3


def test_a_batch_without_any_advantage_still_takes_its_step() -> None:
    """Its gradient is 0, not absent: momentum and weight decay act as they do without the shortcut."""
    trainer = trainer_of(Strategy.SNAPSHOT, Advantage.GRPO, Loss.PPO, random.Random(3))
    nothing_else = trainer._spec.algorithm.model_copy(update={"entropy_coefficient": 0.0, "kl_coefficient": 0.0})
    trainer._spec = trainer._spec.model_copy(update={"algorithm": nothing_else})
    source = random.Random(1)
    groups = [[stored(source, 8, 0, lease, 1.0, True) for lease in range(4)]]
    for parameter in trainer.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.step(0, ())
    before = trainer.train_hash()
    made = trainer.accumulate(groups, 1, RESIDENT)
    assert made.metrics.tokens == sum(s.end - s.start for one in groups[0] for s in one.segments)
    gradients_ = [parameter.grad for parameter in trainer.model.parameters()]
    assert all(one is not None and not one.any() for one in gradients_)
    trainer.step(1, ())
    assert trainer.train_hash() != before
