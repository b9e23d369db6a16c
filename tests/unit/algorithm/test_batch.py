"""The batch: layout, splitting, and the checks before the loss."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import random_batch, trajectory

from asyncppo_runtime.algorithm.batch import (
    NO_VERSION,
    SegmentInput,
    TrajectoryInput,
    build_batch,
    check_ready,
    micro_batches,
)
from asyncppo_runtime.algorithm.errors import BatchError, NotScoredError, VersionMismatchError


def one(*segments: SegmentInput, tokens: int = 8) -> TrajectoryInput:
    return TrajectoryInput(list(range(tokens)), segments, reward=1.0, group=7)


def test_layout_of_a_trajectory_with_two_segments():
    first = SegmentInput(2, 4, 3, [-0.5, -1.5], [-0.6, -1.6], 3)
    second = SegmentInput(5, 6, 4, [-2.5])
    batch = build_batch([one(first, second), one(SegmentInput(1, 2, 5, [-3.0]), tokens=3)], train_version=5)
    assert batch.lengths.tolist() == [8, 3]
    assert batch.token_ids[1].tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
    assert batch.loss_mask[0].tolist() == [False, False, True, True, False, True, False, False]
    assert batch.policy_version[0].tolist() == [-1, -1, 3, 3, -1, 4, -1, -1]
    assert batch.segment_index[0].tolist() == [-1, -1, 0, 0, -1, 1, -1, -1]
    assert batch.staleness[0].tolist() == [0, 0, 2, 2, 0, 1, 0, 0]
    assert batch.behavior_logprobs[0, 2:6].tolist() == [-0.5, -1.5, 0.0, -2.5]
    assert batch.old_logprobs[0, 2:4].tolist() == pytest.approx([-0.6, -1.6])
    assert batch.old_logprobs[0, 5].isnan()
    assert batch.old_logprobs[0, 0] == 0
    assert batch.old_version_used[0].tolist() == [-1, -1, 3, 3, -1, -1, -1, -1]
    assert batch.attention_mask.sum(-1).tolist() == [8, 3]
    assert batch.versions() == [3, 4, 5]
    assert batch.loss_tokens == 4


@pytest.mark.parametrize(
    ("segments", "complaint"),
    [
        ([SegmentInput(0, 2, 1, [-1.0, -1.0])], "starts at 0"),
        ([SegmentInput(3, 3, 1, [])], "is empty"),
        ([SegmentInput(2, 4, 1, [-1.0, -1.0]), SegmentInput(3, 5, 1, [-1.0, -1.0])], "must not overlap"),
        ([SegmentInput(7, 9, 1, [-1.0, -1.0])], "past its 8 tokens"),
        ([SegmentInput(2, 3, 2, [-1.0]), SegmentInput(4, 5, 1, [-1.0])], "versions go up"),
        ([SegmentInput(2, 3, 6, [-1.0])], "training version 5"),
        ([SegmentInput(2, 4, 1, [-1.0])], "2 tokens but 1 behavior_logprobs"),
        ([SegmentInput(2, 3, 1, [-1.0], [-1.0, -2.0], 1)], "1 tokens but 2 old_logprobs"),
    ],
)
def test_malformed_segments_are_refused(segments, complaint):
    with pytest.raises(BatchError, match=complaint):
        build_batch([one(*segments)], train_version=5)


def test_empty_input_is_refused():
    with pytest.raises(BatchError, match="at least one"):
        build_batch([], 0)
    with pytest.raises(BatchError, match="no tokens"):
        build_batch([TrajectoryInput([], [], 0.0, 0)], 0)


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), budget=st.integers(1, 80), rows=st.integers(1, 9))
def test_micro_batches_partition_the_rows_within_the_budget(seed, budget, rows):
    batch = random_batch(seed, trajectories=rows)
    parts = micro_batches(batch, budget)
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(rows))
    for part in parts:
        width = part.batch.token_ids.shape[1]
        assert width == int(part.batch.lengths.max())
        assert part.batch.token_ids.numel() <= budget or len(part.rows) == 1
        for field in dataclasses.fields(batch):
            whole, cut = getattr(batch, field.name), getattr(part.batch, field.name)
            if isinstance(whole, torch.Tensor):
                expected = whole[part.rows, :width] if whole.dim() == 2 else whole[part.rows]
                torch.testing.assert_close(cut, expected, equal_nan=True)
            else:
                assert cut == whole


def test_unscored_tokens_are_refused():
    batch = build_batch([trajectory([1])], 2)
    with pytest.raises(NotScoredError, match="2 of 2 loss tokens have no finite old_logprobs"):
        check_ready(batch, exact=False)
    filled = batch.with_old(torch.zeros_like(batch.old_logprobs), torch.full_like(batch.policy_version, NO_VERSION))
    check_ready(filled, exact=False)
    broken = dataclasses.replace(filled, behavior_logprobs=torch.full_like(filled.behavior_logprobs, math.inf))
    with pytest.raises(NotScoredError, match="behavior_logprobs"):
        check_ready(broken, exact=False)


def test_exact_mode_refuses_another_version():
    batch = build_batch([trajectory([1, 2])], 2)
    old = torch.zeros_like(batch.old_logprobs)
    check_ready(batch.with_old(old, batch.policy_version), exact=True)
    wrong = batch.policy_version.clone()
    wrong[0, 6] = 1
    with pytest.raises(VersionMismatchError, match="token 6: sampled by 2, scored by 1"):
        check_ready(batch.with_old(old, wrong), exact=True)


def test_advantages_stay_on_loss_tokens():
    batch = build_batch([trajectory([1]), trajectory([2])], 2)
    spread = batch.with_advantages(torch.tensor([2.0, -1.0]))
    assert spread.advantages[batch.loss_mask].tolist() == [2.0, 2.0, -1.0, -1.0]
    assert spread.advantages[~batch.loss_mask].abs().sum() == 0
