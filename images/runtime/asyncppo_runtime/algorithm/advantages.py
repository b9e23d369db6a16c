"""From rewards to advantages.

Owns the estimators: GRPO, Dr. GRPO, RLOO, REINFORCE++ and GAE, and what a zero-variance group is. Does not own the critic that GAE's
values come from, nor which groups are dropped.

Groups are the trajectories of one prompt; members may be of different versions. Whitening is over loss tokens before any
correction mask, so that masks do not move the baseline. What is compared with its equals only has advantage 0, exactly: a mean of
equal rewards is not always that reward to the last bit, and the difference divided by the spread's floor would be a signal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from asyncppo.api.training import Advantage

STD_FLOOR = 1e-6


@dataclass(frozen=True)
class GaeResult:
    """advantages and returns (value targets), float [B, T]; 0 outside the loss mask."""

    advantages: Tensor
    returns: Tensor


def estimate(
    kind: Advantage,
    rewards: Tensor,
    group: Tensor,
    loss_mask: Tensor,
    *,
    values: Tensor | None = None,
    discount: float = 1.0,
    gae_lambda: float = 1.0,
) -> Tensor:
    """Advantages [B, T] of a whole batch, 0 outside the loss mask.

    rewards: float [B], of whole trajectories. group: int64 [B]. loss_mask: bool [B, T]. values: float [B, T], GAE only (ValueError
    without); the reward falls on the last loss token. A group must be in the batch whole, or its baseline is not its own.
    """
    if kind is Advantage.GAE:
        if values is None:
            raise ValueError("GAE needs the critic's values")
        return gae(terminal_rewards(rewards, loss_mask), values, loss_mask, discount, gae_lambda).advantages
    if kind is Advantage.REINFORCE_PLUS_PLUS:
        return reinforce_plus_plus(rewards, loss_mask, discount)
    per_trajectory = {Advantage.GRPO: grpo, Advantage.DR_GRPO: dr_grpo, Advantage.RLOO: rloo}[kind](rewards, group)
    return torch.where(loss_mask, per_trajectory[:, None], 0.0)


def grpo(rewards: Tensor, group: Tensor) -> Tensor:
    """(R - mean) / (std + 1e-6) within the group, std unbiased; a group of one keeps its reward (mean 0, std 1). [B] → [B].

    Equal rewards: exactly 0.
    """
    index, size = _groups(group)
    mean = _group_mean(rewards, index, size)
    squares = torch.zeros_like(size, dtype=rewards.dtype).index_add_(0, index, (rewards - mean[index]) ** 2)
    std = (squares / (size - 1).clamp(min=1)).sqrt()
    normalised = (rewards - mean[index]) / (std[index] + STD_FLOOR)
    return torch.where(zero_variance(rewards, group), 0.0, torch.where(size[index] > 1, normalised, rewards))


def dr_grpo(rewards: Tensor, group: Tensor) -> Tensor:
    """R - mean of the group, without the division by its spread; a group of one keeps its reward. Equal rewards: exactly 0. [B] → [B]."""
    index, size = _groups(group)
    mean = _group_mean(rewards, index, size)
    return torch.where(zero_variance(rewards, group), 0.0, torch.where(size[index] > 1, rewards - mean[index], rewards))


def rloo(rewards: Tensor, group: Tensor) -> Tensor:
    """R - mean of the *other* members = G/(G-1) (R - mean); a group of one keeps its reward. Equal rewards: exactly 0. [B] → [B]."""
    index, size = _groups(group)
    scale = size.to(rewards.dtype) / (size - 1).clamp(min=1)
    return torch.where(size[index] > 1, scale[index] * dr_grpo(rewards, group), rewards)


def reinforce_plus_plus(rewards: Tensor, loss_mask: Tensor, discount: float = 1.0) -> Tensor:
    """Each loss token's discounted return, whitened over all loss tokens of the batch. rewards [B], loss_mask [B, T] → [B, T].

    A token's return is discount^k R, k = loss tokens of the trajectory that follow it. The baseline is the batch's: a group of equal
    rewards has an advantage here, as soon as other groups' rewards differ from it.
    """
    following = loss_mask.flip(-1).cumsum(-1).flip(-1) - 1
    returns = rewards[:, None] * torch.full_like(rewards[:, None], discount) ** following.clamp(min=0)
    return whiten(returns, loss_mask)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """(x - mean) / (std + 1e-6) over the masked entries, std unbiased; 0 elsewhere, and everywhere when all entries are equal.

    Fewer than two entries stay as they are.
    """
    chosen = values[mask]
    if chosen.numel() < 2:
        return torch.where(mask, values, 0.0)
    if chosen.max() == chosen.min():
        return torch.zeros_like(values)
    return torch.where(mask, (values - chosen.mean()) / (chosen.std() + STD_FLOOR), 0.0)


def terminal_rewards(rewards: Tensor, loss_mask: Tensor) -> Tensor:
    """The trajectory's reward [B] on its last loss token: [B, T]."""
    last = loss_mask & (loss_mask.flip(-1).cumsum(-1).flip(-1) == 1)
    return torch.where(last, rewards[:, None], 0.0)


def gae(
    token_rewards: Tensor, values: Tensor, loss_mask: Tensor, discount: float = 1.0, gae_lambda: float = 1.0
) -> GaeResult:
    """Generalised advantage estimation over the loss tokens; the environment's tokens between two turns are stepped over.

    token_rewards, values: float [B, T]; loss_mask: bool [B, T]. With V' and A' of the *next loss token* (0 after the last):
        delta_t = r_t + discount V' - V_t,   A_t = delta_t + discount gae_lambda A'
    A reward on an environment's token counts for the loss token before it.
    """
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    pending = torch.zeros_like(next_value)
    advantages = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        own = loss_mask[:, t]
        reward = token_rewards[:, t] + pending
        delta = reward + discount * next_value - values[:, t]
        advantage = delta + discount * gae_lambda * next_advantage
        advantages[:, t] = torch.where(own, advantage, 0.0)
        pending = torch.where(own, 0.0, reward)
        next_value = torch.where(own, values[:, t], next_value)
        next_advantage = torch.where(own, advantage, next_advantage)
    returns = torch.where(loss_mask, advantages + values, 0.0)
    return GaeResult(advantages=advantages, returns=returns)


def zero_variance(rewards: Tensor, group: Tensor) -> Tensor:
    """bool [B]: the trajectory's group has more than one member and all of them the very same reward.

    No signal where the baseline is the group's own (GRPO, Dr. GRPO, RLOO); REINFORCE++ and GAE compare with others.
    """
    index, size = _groups(group)
    high = torch.full_like(size, -torch.inf, dtype=rewards.dtype).scatter_reduce_(0, index, rewards, "amax")
    low = torch.full_like(size, torch.inf, dtype=rewards.dtype).scatter_reduce_(0, index, rewards, "amin")
    return ((high == low) & (size > 1))[index]


def _groups(group: Tensor) -> tuple[Tensor, Tensor]:
    """Each trajectory's group as 0..n-1 (int64 [B]), and the groups' sizes (int64 [n])."""
    _, index, size = torch.unique(group, return_inverse=True, return_counts=True)
    return index, size


def _group_mean(rewards: Tensor, index: Tensor, size: Tensor) -> Tensor:
    return torch.zeros_like(size, dtype=rewards.dtype).index_add_(0, index, rewards) / size
