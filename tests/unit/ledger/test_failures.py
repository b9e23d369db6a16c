"""Trajectories in a row that were worth nothing: counted across uploads and openings, told by the commonest, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.ledger.builders import Job, trajectory

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Trajectory
from asyncppo_runtime.ledger.records import LONGEST_TEXT, MOST_CAUSES, FailureRun, Limits

FAIL_AFTER = 64


def failed(job: Job, sender: Envelope, *errors: str, end_reason: str = "environment_error") -> FailureRun:
    """Each error ends one trajectory; the run after them."""
    for error in errors:
        (lease,) = job.grant(sender, 1)
        wrong = structs.replace(trajectory(lease, end_reason=end_reason), error=error)
        found = job.ledger.receive(sender, [wrong], 1.0)
        assert found.failures == job.ledger.failures()
    return job.ledger.failures()


def test_failures_are_counted_by_kind_until_a_good_one_comes(job: Job) -> None:
    sender = job.member()
    run = failed(job, sender, "KeyError: 'a'", "OSError: gone", "KeyError: 'b'")
    assert run.in_a_row == 3
    assert (run.commonest.reason, run.commonest.count, run.commonest.example) == (
        "environment_error",
        2,
        "KeyError: 'b'",
    )
    (lease,) = job.grant(sender, 1)
    assert job.ledger.receive(sender, [trajectory(lease)], 1.0).failures == FailureRun(last="KeyError: 'b'")
    job.check()


def test_one_upload_is_counted_in_its_order(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 3)
    uploads: list[Trajectory] = [
        trajectory(leases[0], end_reason="environment_timeout"),
        trajectory(leases[1]),
        trajectory(leases[2], end_reason="environment_timeout"),
    ]
    assert job.ledger.receive(sender, uploads, 1.0).failures.in_a_row == 1


def test_what_came_too_late_says_nothing_about_the_environment(job: Job) -> None:
    sender = job.member()
    failed(job, sender, "KeyError: 'a'")
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [trajectory(lease, weights_hash="other")], 1.0)
    assert job.ledger.totals().discarded["hash_mismatch"] == 1
    assert job.ledger.failures().in_a_row == 1


def test_a_restart_in_the_middle_counts_on_and_a_new_trial_begins_anew(job: Job) -> None:
    sender = job.member()
    failed(job, sender, *["KeyError: 'a'"] * 3)
    job.reopen()
    job.ledger.impose(Limits(), FAIL_AFTER, 2.0)
    assert job.ledger.failures().in_a_row == 3
    job.reopen()
    job.ledger.impose(Limits(), 3, 2.0)
    assert job.ledger.failures() == FailureRun(last="KeyError: 'a'")


def test_what_a_rollout_says_is_kept_short_and_harmless(job: Job) -> None:
    sender = job.member()
    run = failed(job, sender, "ValueError: \x1b[2J\u202e\nsecond line " + "x" * 5_000_000)
    assert run.last.startswith("ValueError: [2J second line xxx")
    assert len(run.last) == LONGEST_TEXT
    assert run.last.isprintable()
    kept = job.ledger.trajectory(1)
    assert kept is not None
    assert kept.trajectory is not None
    assert kept.trajectory.error == run.last


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"reward": 1e300}, "reward_out_of_bounds", "1e+300"),
        ({"reward": float("nan")}, "reward_out_of_bounds", "nan"),
        ({"token_ids": [1, 2, 3, (1 << 31) - 1]}, "token_out_of_vocabulary", "2147483647"),
        ({"token_ids": [1] * 100_000}, "context_exceeded", "100000 token ids"),
    ],
)
def test_the_door_refuses_what_no_step_survives(job: Job, changes: dict[str, object], reason: str, words: str) -> None:
    sender = job.member()
    job.ledger.impose(Limits(reward_bound=1e6, context_length=64, vocabulary=50), FAIL_AFTER, 0.0)
    (lease,) = job.grant(sender, 1)
    wrong = structs.replace(trajectory(lease), **changes)
    for _ in range(2):  # an answer that was lost is asked for again
        found = job.ledger.receive(sender, [wrong], 1.0)
        assert not found.fenced
    assert job.ledger.totals().discarded == {reason: 1}
    assert job.ledger.totals().waiting == 0
    run = job.ledger.failures()
    assert (run.in_a_row, run.commonest.reason) == (1, reason)
    assert words in run.last
    assert job.ledger.unscored() == []
    job.check()


def test_a_partial_one_is_judged_too(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    fine = trajectory(lease, finished=False)
    job.ledger.receive(sender, [fine], 1.0)
    job.ledger.impose(Limits(vocabulary=50), FAIL_AFTER, 0.0)
    worse = structs.replace(trajectory(lease, [0, 0], finished=False), token_ids=[1, 10, 10, 10, 1, 99, 99, 99])
    found = job.ledger.receive(sender, [worse], 1.0)
    assert [refusal.reason for refusal in found.reply.refused] == ["token_out_of_vocabulary"]
    assert job.ledger.unscored() == [], "nothing of it is scored"
    job.check()


@given(kinds=st.lists(st.text(max_size=20), max_size=60))
def test_a_run_stays_small_whatever_is_said(kinds: list[str]) -> None:
    run = FailureRun()
    for kind in kinds:
        run = run.after_failure("environment_error", f"{kind}: x")
    assert run.in_a_row == len(kinds) == sum(cause.count for cause in run.causes.values())
    assert len(run.causes) <= MOST_CAUSES + 1
