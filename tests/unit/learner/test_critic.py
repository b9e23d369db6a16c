"""The critic: whose hidden state a value is of, what stays out of a policy version, and what a checkpoint keeps of it."""

from pathlib import Path

import pytest
import torch
from tests.unit.algorithm.builders import random_batch, tiny_model
from tests.unit.api.builders import spec as make_spec

from asyncppo.api.training import CriticSpec
from asyncppo_runtime.algorithm.advantages import gae, terminal_rewards, whiten
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.learner.checkpoints import read_checkpoint, write_checkpoint
from asyncppo_runtime.learner.critic import Critic
from asyncppo_runtime.learner.errors import CheckpointError
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.policy.state import policy_tensors


def critic(model: torch.nn.Module, **settings: float) -> Critic:
    made = Critic(CriticSpec(**settings), model)
    with torch.no_grad():
        made.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        made.head.bias.fill_(0.3)
    return made


def test_a_value_is_of_the_context_before_its_token() -> None:
    model, batch = tiny_model(), random_batch(3)
    one = critic(model)
    values = one.judge(model, batch, 64).values
    for row, t in torch.nonzero(batch.loss_mask).tolist():
        with torch.no_grad():
            hidden = model.model(input_ids=batch.token_ids[row : row + 1, :t]).last_hidden_state[0, -1]
            expected = float(one.head(hidden))
        assert float(values[row, t]) == pytest.approx(expected, abs=1e-9)
    assert values[~batch.loss_mask].abs().sum() == 0
    trained = forward_logprobs(model, batch.token_ids, batch.lengths, mask=batch.loss_mask, value_head=one.head)
    assert trained.values is not None
    torch.testing.assert_close(trained.values.detach(), values, rtol=0, atol=1e-9)


def test_advantages_are_gae_of_those_values_whitened_over_all_loss_tokens() -> None:
    model, batch = tiny_model(), random_batch(5)
    one = critic(model, gamma=0.97, gae_lambda=0.8)
    judged = one.judge(model, batch, 64)
    plain = gae(terminal_rewards(batch.rewards, batch.loss_mask), judged.values, batch.loss_mask, 0.97, 0.8)
    torch.testing.assert_close(judged.returns, plain.returns, rtol=0, atol=1e-12)
    torch.testing.assert_close(judged.advantages, whiten(plain.advantages, batch.loss_mask), rtol=0, atol=1e-12)


def test_values_do_not_depend_on_what_comes_later_nor_on_micro_batches() -> None:
    model, batch = tiny_model(), random_batch(7)
    one = critic(model)
    torch.testing.assert_close(
        one.judge(model, batch, 1).values, one.judge(model, batch, 10_000).values, rtol=0, atol=1e-9
    )
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


GAE = {
    "oldLogits.strategy": "Recompute",
    "algorithm.advantage": "GAE",
    "algorithm.critic": {"learningRate": 0.02},
    "optimizer.learningRate": 0.01,
}


def step(trainer: Trainer, update: int) -> None:
    for parameter in [*trainer.model.parameters(), *trainer.critic.parameters]:  # type: ignore[union-attr]
        parameter.grad = torch.ones_like(parameter)
    trainer.step(update, ())


def test_the_head_is_no_part_of_a_version_and_moves_at_its_own_rate() -> None:
    trainer = Trainer(make_spec(GAE))
    assert trainer.critic is not None
    assert not any("head" in name and "lm_head" not in name for name in policy_tensors(trainer.model))
    before = trainer.train_hash()
    with torch.no_grad():
        trainer.critic.head.weight.add_(1.0)
    assert trainer.train_hash() == before
    bias = trainer.critic.head.bias.item()
    step(trainer, 0)
    assert trainer.train_hash() != before
    assert trainer.critic.head.bias.item() == pytest.approx(bias - 0.02, rel=1e-3), "Adam's first step is the rate"


def test_a_checkpoint_brings_head_and_optimizer_back(tmp_path: Path) -> None:
    trainer = Trainer(make_spec(GAE))
    step(trainer, 0)
    trainer.published(1)
    folder = write_checkpoint(tmp_path, trainer.checkpoint(1, 1, "f"))
    again = Trainer(make_spec(GAE))
    again.restore(read_checkpoint(folder))
    step(trainer, 1)
    step(again, 1)
    assert trainer.critic is not None
    assert again.critic is not None
    assert torch.equal(trainer.critic.head.weight, again.critic.head.weight)
    assert trainer.train_hash() == again.train_hash()


def test_a_checkpoint_without_a_critic_is_refused(tmp_path: Path) -> None:
    plain = Trainer(make_spec())
    plain.published(0)
    folder = write_checkpoint(tmp_path, plain.checkpoint(0, 0, "f"))
    with pytest.raises(CheckpointError, match="critic"):
        Trainer(make_spec(GAE)).restore(read_checkpoint(folder))
