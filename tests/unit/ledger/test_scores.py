"""Scores: stored once, only from the weights that sampled, and the two ways a segment can end."""

import numpy as np
import pytest
from tests.unit.ledger.builders import Job, group_counts, score, settings, trajectory

from asyncppo_runtime.ledger.records import Reason, Score, SealRule, SegmentKey, SegmentState


def received(job: Job, count: int = 2) -> None:
    sender = job.member()
    job.ledger.receive(sender, [trajectory(lease, [0, 0]) for lease in job.grant(sender, count)], 1.0)


def test_items_carry_what_a_forward_needs(job: Job) -> None:
    received(job, 1)
    first, second = job.ledger.unscored(0)
    assert (first.start, first.end, first.token_ids) == (1, 4, [1, 10, 10, 10])
    assert (second.start, second.end, second.token_ids) == (5, 8, [1, 10, 10, 10, 1, 11, 11, 11])
    assert (first.version, first.weights_hash, first.group_id) == (0, "published-0", 0)
    np.testing.assert_array_equal(first.behavior_logprobs, [-0.25, -0.375, -0.5])
    assert job.ledger.unscored(1) == []
    assert len(job.ledger.unscored(limit=1)) == 1
    assert [item.key for item in job.ledger.score_items([0, 5])] == [first.key, second.key]


def test_scores_come_back_as_they_were(job: Job) -> None:
    received(job)
    values = np.asarray([-0.1, -1e-9, -123.456789012345], np.float64)
    items = job.ledger.unscored()
    scores = [changed(score(item), old_logprobs=values) for item in items]
    assert job.ledger.record_scores(scores, 2.0).recorded == 4
    job.reopen()
    for group in job.ledger.load_groups([0]):
        for kept in group:
            for part in kept.segments:
                assert part.old_logprobs is not None
                np.testing.assert_array_equal(part.old_logprobs, values)
                assert (part.state, part.scorer_version, part.scorer_hash, part.kind) == (
                    SegmentState.SCORED, 0, "train-0", "exact_interrupt",
                )  # fmt: skip
    totals = job.ledger.totals()
    assert (totals.tokens.scored, totals.tokens.unscored) == (12, 0)


def changed(one: Score, **changes: object) -> Score:
    """A score with something changed."""
    fields = {name: getattr(one, name) for name in ("key", "old_logprobs", "version", "train_hash", "kind")}
    return Score(**{**fields, **changes})  # type: ignore[arg-type]


def test_float32_is_stored_without_loss(job: Job) -> None:
    received(job, 1)
    item = job.ledger.unscored()[0]
    values = np.asarray([-0.1, -0.2, -0.3], np.float32)
    job.ledger.record_scores([changed(score(item), old_logprobs=values)], 2.0)
    kept = job.ledger.trajectory(1)
    assert kept is not None
    assert kept.segments[0].old_logprobs is not None
    assert (kept.segments[0].old_logprobs.astype(np.float32) == values).all()


def test_a_second_score_changes_nothing(job: Job) -> None:
    received(job, 1)
    items = job.ledger.unscored()
    first = [score(item, shift=0.01) for item in items]
    assert job.ledger.record_scores([*first, first[0]], 2.0).known == 1
    receipt = job.ledger.record_scores([score(item, shift=0.5) for item in items], 3.0)
    assert (receipt.recorded, receipt.known, receipt.refused) == (0, 2, [])
    kept = job.ledger.trajectory(1)
    assert kept is not None
    np.testing.assert_array_equal(kept.segments[0].old_logprobs, items[0].behavior_logprobs + 0.01)
    assert job.ledger.totals().tokens.scored == 6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 1, "train_hash": "train-1"}, "wrong_version"),
        ({"train_hash": "other"}, "hash_mismatch"),
        ({"key": SegmentKey(1, 0, "0000")}, "conflict"),
        ({"key": SegmentKey(1, 9, "0000")}, "unknown_segment"),
        ({"old_logprobs": np.zeros(2)}, "malformed"),
        ({"old_logprobs": np.asarray([0.0, float("nan"), 0.0])}, "malformed"),
    ],
)
def test_what_is_not_the_segments_own_score_is_refused(job: Job, changes: dict[str, object], reason: str) -> None:
    received(job, 1)
    wrong = changed(score(job.ledger.unscored()[0]), **changes)
    receipt = job.ledger.record_scores([wrong], 2.0)
    assert (receipt.recorded, receipt.refused) == (0, [(wrong.key, reason)])
    totals = job.ledger.totals()
    assert (totals.tokens.scored, totals.refused) == (0, {f"score_{reason}": 1})


def test_an_inexact_job_takes_scores_of_other_versions(tmp_path_factory: pytest.TempPathFactory) -> None:
    job = Job(tmp_path_factory.mktemp("ledger") / "ledger.db", settings(seal_rule=SealRule.NONE, exact=False))
    job.publish(0)
    received(job, 1)
    job.publish(1)
    scores = [score(item, version=1) for item in job.ledger.unscored()]
    assert job.ledger.record_scores(scores, 2.0).recorded == 2
    kept = job.ledger.trajectory(1)
    assert kept is not None
    assert {(part.version, part.scorer_version) for part in kept.segments} == {(0, 1)}
    job.check()
    job.ledger.close()


def test_a_discarded_segment_takes_its_trajectory_with_it(job: Job) -> None:
    received(job)
    first = job.ledger.unscored()[0]
    assert job.ledger.discard_segments([first.key], Reason.MISLABELLED, 2.0) == 1
    assert job.ledger.discard_segments([first.key], Reason.MISLABELLED, 2.0) == 0
    totals = job.ledger.totals()
    assert (totals.discarded, totals.waiting) == ({"mislabelled": 1}, 1)
    assert (totals.tokens.discarded, totals.tokens.unscored) == ({"mislabelled": 6}, 6)
    assert group_counts(job.ledger).open == 1
    receipt = job.ledger.record_scores([score(first)], 3.0)
    assert receipt.refused == [(first.key, "discarded")]


def test_a_discarded_segment_in_flight_spoils_what_comes_after(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [trajectory(lease, [0], finished=False)], 1.0)
    job.ledger.discard_segments([job.ledger.unscored()[0].key], Reason.MISLABELLED, 1.0)
    job.ledger.receive(sender, [trajectory(lease, [0, 0])], 2.0)
    totals = job.ledger.totals()
    assert (totals.discarded, totals.tokens.discarded) == ({"mislabelled": 1}, {"mislabelled": 6})


def test_tokens_may_be_discarded_without_their_trajectory(job: Job) -> None:
    received(job)
    items = job.ledger.unscored()
    assert job.ledger.discard_segments([items[0].key], "unavailable", 2.0, keep_trajectory=True) == 1
    job.score_all()
    (ready,) = job.ledger.ready_groups()
    assert ready.unscored == {}
    (group,) = job.ledger.load_groups([0])
    assert [part.state for part in group[0].segments] == [SegmentState.DISCARDED, SegmentState.SCORED]
    assert group[0].segments[0].old_logprobs is None
    totals = job.ledger.totals()
    assert (totals.waiting, totals.tokens.discarded) == (2, {"unavailable": 3})


def test_a_discard_under_another_digest_is_ignored(job: Job) -> None:
    received(job, 1)
    key = job.ledger.unscored()[0].key
    assert job.ledger.discard_segments([SegmentKey(key.lease_id, key.index, "0000")], "x", 2.0) == 0
    assert job.ledger.totals().tokens.unscored == 6
