"""The batch of one optimizer step as padded [B, T] tensors.

Owns the layout, how it is made from plain sequences, how it is split, and the checks that stand before the loss. Does not own
which trajectories are in it (`asyncppo_runtime.learner`) nor the values of old log-probs and advantages.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asyncppo_runtime.algorithm.errors import BatchError, NotScoredError, VersionMismatchError

NO_VERSION = -1


@dataclass(frozen=True)
class SegmentInput:
    """Tokens [start, end) of a trajectory, sampled under `version`.

    behavior_logprobs: the engine's, one per token. old_logprobs: the train side's, or None while unscored.
    old_version: version of the weights that really produced old_logprobs, as the scorer said (NO_VERSION: unscored or a proxy).
    """

    start: int
    end: int
    version: int
    behavior_logprobs: Sequence[float]
    old_logprobs: Sequence[float] | None = None
    old_version: int = NO_VERSION


@dataclass(frozen=True)
class TrajectoryInput:
    """One trajectory: exact ids of the whole context, the segments the model sampled (in order, disjoint), reward and group."""

    token_ids: Sequence[int]
    segments: Sequence[SegmentInput]
    reward: float
    group: int


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded trajectories. B trajectories, T the longest one's length.

    token_ids        int64 [B, T]  exact engine ids; 0 in the padding
    lengths          int64 [B]     tokens of each trajectory
    loss_mask        bool  [B, T]  True on tokens the model sampled; False on prompt, environment and padding
    policy_version   int64 [B, T]  version that sampled the token; NO_VERSION elsewhere
    segment_index    int64 [B, T]  ordinal of the token's segment; -1 elsewhere
    behavior_logprobs float [B, T] engine's log-prob at sampling; 0 elsewhere
    old_logprobs     float [B, T]  train-side log-prob (or the strategy's anchor); NaN where not filled yet, 0 outside the loss mask
    old_version_used int64 [B, T]  version of the weights that produced old_logprobs; NO_VERSION: unscored or a proxy
    advantages       float [B, T]  0 until filled
    rewards          float [B]     group int64 [B]
    train_version    version resident when the step begins (v_train)
    """

    token_ids: Tensor
    lengths: Tensor
    loss_mask: Tensor
    policy_version: Tensor
    segment_index: Tensor
    behavior_logprobs: Tensor
    old_logprobs: Tensor
    old_version_used: Tensor
    advantages: Tensor
    rewards: Tensor
    group: Tensor
    train_version: int

    @property
    def attention_mask(self) -> Tensor:
        """bool [B, T]: True where there is a token."""
        return torch.arange(self.token_ids.shape[1], device=self.lengths.device) < self.lengths[:, None]

    @property
    def staleness(self) -> Tensor:
        """int64 [B, T]: train_version - policy_version on loss tokens, 0 elsewhere."""
        return torch.where(self.loss_mask, self.train_version - self.policy_version, 0)

    @property
    def loss_tokens(self) -> int:
        """Number of loss tokens."""
        return int(self.loss_mask.sum())

    def versions(self) -> list[int]:
        """Distinct versions of the loss tokens, oldest first."""
        return [int(v) for v in torch.unique(self.policy_version[self.loss_mask])]

    def with_old(self, old_logprobs: Tensor, old_version_used: Tensor) -> "TokenBatch":
        """The batch with these old log-probs (on loss tokens) and the versions that really produced them."""
        return dataclasses.replace(
            self,
            old_logprobs=torch.where(self.loss_mask, old_logprobs.to(self.old_logprobs.dtype), 0.0),
            old_version_used=torch.where(self.loss_mask, old_version_used, NO_VERSION),
        )

    def with_advantages(self, advantages: Tensor) -> "TokenBatch":
        """The batch with these advantages: [B] (one per trajectory) or [B, T]."""
        spread = advantages[:, None] if advantages.dim() == 1 else advantages
        kept = torch.where(self.loss_mask, spread.to(self.advantages.dtype), 0.0)
        return dataclasses.replace(self, advantages=kept)

    def select(self, rows: Tensor) -> "TokenBatch":
        """These rows (int64 [b]), trimmed to the longest of them."""
        longest = int(self.lengths[rows].max()) if rows.numel() else 0
        return self._each(lambda value: value[rows, :longest] if value.dim() == 2 else value[rows])

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The batch on another device."""
        return self._each(lambda value: value.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TokenBatch":
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changes: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class MicroBatch:
    """A part of a batch that one forward takes. rows: int64 [b], where its trajectories stand in the whole batch."""

    rows: Tensor
    batch: TokenBatch


def build_batch(
    trajectories: Sequence[TrajectoryInput], train_version: int, dtype: torch.dtype = torch.float32
) -> TokenBatch:
    """Pad trajectories into a batch; log-probs, rewards and advantages in `dtype` (float32 or float64).

    Raises BatchError when a trajectory is empty, or a segment is empty, starts at token 0 (which has no log-prob), overlaps the one
    before it, leaves the context, goes back in version, is newer than train_version, or carries another number of log-probs.
    """
    if not trajectories:
        raise BatchError("a batch needs at least one trajectory")
    count, longest = len(trajectories), max(len(t.token_ids) for t in trajectories)
    # Flat lists and one scatter each: a tensor operation per segment would cost more than the forward of a small model.
    present: list[int] = []
    ids: list[int] = []
    where: list[int] = []
    version: list[int] = []
    ordinal: list[int] = []
    used: list[int] = []
    behavior: list[float] = []
    old: list[float] = []
    for row, trajectory in enumerate(trajectories):
        _check_trajectory(row, trajectory, train_version)
        first = row * longest
        present.extend(range(first, first + len(trajectory.token_ids)))
        ids.extend(trajectory.token_ids)
        for index, segment in enumerate(trajectory.segments):
            tokens = segment.end - segment.start
            where.extend(range(first + segment.start, first + segment.end))
            version.extend([segment.version] * tokens)
            ordinal.extend([index] * tokens)
            behavior.extend(segment.behavior_logprobs)
            scored = segment.old_logprobs is not None
            old.extend(segment.old_logprobs if segment.old_logprobs is not None else [math.nan] * tokens)
            used.extend([segment.old_version if scored else NO_VERSION] * tokens)
    places = torch.tensor(where, dtype=torch.int64)

    def spread(values: Sequence[float], at: Tensor, kind: torch.dtype, fill: float) -> Tensor:
        flat = torch.full((count * longest,), fill, dtype=kind)
        flat[at] = torch.tensor(values, dtype=kind)
        return flat.view(count, longest)

    return TokenBatch(
        token_ids=spread(ids, torch.tensor(present, dtype=torch.int64), torch.int64, 0),
        lengths=torch.tensor([len(t.token_ids) for t in trajectories], dtype=torch.int64),
        loss_mask=spread([True] * len(where), places, torch.bool, False),
        policy_version=spread(version, places, torch.int64, NO_VERSION),
        segment_index=spread(ordinal, places, torch.int64, -1),
        behavior_logprobs=spread(behavior, places, dtype, 0.0),
        old_logprobs=spread(old, places, dtype, 0.0),
        old_version_used=spread(used, places, torch.int64, NO_VERSION),
        advantages=torch.zeros((count, longest), dtype=dtype),
        rewards=torch.tensor([t.reward for t in trajectories], dtype=dtype),
        group=torch.tensor([t.group for t in trajectories], dtype=torch.int64),
        train_version=train_version,
    )


def micro_batches(batch: TokenBatch, token_budget: int) -> list[MicroBatch]:
    """Split into micro-batches of at most `token_budget` tokens, padding included; longest trajectories first.

    A trajectory longer than the budget gets a micro-batch of its own. The loss is invariant to the split as long as the normaliser
    is the whole batch's.
    """
    order = torch.argsort(batch.lengths, descending=True, stable=True).tolist()
    parts: list[list[int]] = []
    for row in order:
        longest = int(batch.lengths[parts[-1][0]]) if parts else 0
        if parts and (len(parts[-1]) + 1) * longest <= token_budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    rows = [torch.tensor(part, dtype=torch.int64, device=batch.lengths.device) for part in parts]
    return [MicroBatch(rows=part, batch=batch.select(part)) for part in rows]


def check_ready(batch: TokenBatch, exact: bool, stand_ins: bool = False) -> None:
    """Assert, before the loss, that every loss token can be trained on.

    Raises NotScoredError for a non-finite behavior or old log-prob or advantage; VersionMismatchError when `exact` and
    an old log-prob comes from another version than the token. stand_ins: values of no version at all are let through, since they say
    so themselves (`oldLogits.onUnavailable: Fallback`).
    """
    for name in ("behavior_logprobs", "old_logprobs", "advantages"):
        bad = batch.loss_mask & ~torch.isfinite(getattr(batch, name))
        if bad.any():
            row, position = _first(bad)
            raise NotScoredError(
                f"{int(bad.sum())} of {batch.loss_tokens} loss tokens have no finite {name} (first: trajectory {row}, token "
                f"{position}); score these tokens or discard their trajectories before the step"
            )
    if exact:
        wrong = batch.loss_mask & (batch.old_version_used != batch.policy_version)
        if stand_ins:
            wrong = wrong & (batch.old_version_used != NO_VERSION)
        if wrong.any():
            row, position = _first(wrong)
            raise VersionMismatchError(
                f"{int(wrong.sum())} of {batch.loss_tokens} loss tokens were scored by another version than the one that sampled them "
                f"(first: trajectory {row}, token {position}: sampled by {int(batch.policy_version[row, position])}, scored by "
                f"{int(batch.old_version_used[row, position])}); score them again or discard their trajectories"
            )


def _first(where: Tensor) -> tuple[int, int]:
    row, position = torch.nonzero(where)[0].tolist()
    return row, position


def _check_trajectory(row: int, trajectory: TrajectoryInput, train_version: int) -> None:
    where = f"trajectory {row}"
    if not trajectory.token_ids:
        raise BatchError(f"{where} has no tokens")
    end, version = 1, 0
    for index, segment in enumerate(trajectory.segments):
        tokens = segment.end - segment.start
        if tokens <= 0:
            raise BatchError(f"{where}, segment {index} is empty: [{segment.start}, {segment.end})")
        if segment.start < end:
            raise BatchError(
                f"{where}, segment {index} starts at {segment.start}; the earliest possible start is {end} "
                "(segments must not overlap, and token 0 has no log-prob)"
            )
        if segment.end > len(trajectory.token_ids):
            raise BatchError(
                f"{where}, segment {index} ends at {segment.end}, past its {len(trajectory.token_ids)} tokens"
            )
        if segment.version < version or segment.version > train_version:
            raise BatchError(
                f"{where}, segment {index} has version {segment.version}; versions go up within a trajectory "
                f"(here from {version}) and not past the training version {train_version}"
            )
        given = {"behavior_logprobs": segment.behavior_logprobs, "old_logprobs": segment.old_logprobs}
        for name, values in given.items():
            if values is not None and len(values) != tokens:
                raise BatchError(f"{where}, segment {index} has {tokens} tokens but {len(values)} {name}")
        end, version = segment.end, segment.version
