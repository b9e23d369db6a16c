"""A ledger that holds what no step survives, written before it was judged at the door: it is discarded at the next start."""

import numpy as np
from msgspec import structs
from tests.unit.ledger.builders import Job, trajectory

from asyncppo_runtime.ledger.records import Fate, Limits

LIMITS = Limits(reward_bound=1e6, context_length=64, vocabulary=50)
FAIL_AFTER = 64


def test_poison_that_waits_is_discarded_with_its_reason(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 6)
    poison = {
        1: structs.replace(trajectory(leases[0]), reward=1e300),
        2: structs.replace(trajectory(leases[1]), token_ids=[1, 2, 3, (1 << 31) - 1]),
        3: structs.replace(trajectory(leases[2]), token_ids=[1] * 1000),
        4: structs.replace(trajectory(leases[3]), reward=-1e20),
    }
    job.ledger.receive(sender, [*poison.values(), trajectory(leases[4])], 0.0)
    in_flight = structs.replace(trajectory(leases[5], finished=False), token_ids=[1, 2, 3, 99])
    job.ledger.receive(sender, [in_flight], 0.0)
    job.score_all()
    job.reopen()

    found = job.ledger.impose(LIMITS, FAIL_AFTER, 1.0)

    assert {one.lease_id: one.reason for one in found} == {
        1: "reward_out_of_bounds",
        2: "token_out_of_vocabulary",
        3: "context_exceeded",
        4: "reward_out_of_bounds",
        6: "token_out_of_vocabulary",
    }
    assert "1e+300" in found[0].detail
    assert "reward.bound" in found[0].detail
    totals = job.ledger.totals()
    assert totals.waiting == 1
    assert totals.discarded == {"context_exceeded": 1, "reward_out_of_bounds": 2, "token_out_of_vocabulary": 1}
    kept = job.ledger.trajectory(5)
    assert kept is not None
    assert kept.fate is Fate.WAITING
    told = [event for event in job.ledger.events() if event.kind == "discarded_on_review"]
    assert [event.subject for event in told] == ["1", "2", "3", "4", "6"]
    job.check()
    # Their places are free again, and the one in flight is discarded when it comes.
    assert sorted({lease.group_id for lease in job.grant(sender, 4)}) == [0, 1]
    finished = structs.replace(trajectory(leases[5]), token_ids=[1, 2, 3, 4])
    assert job.ledger.impose(LIMITS, FAIL_AFTER, 2.0) == [], "once is enough"
    job.ledger.receive(sender, [finished], 3.0)
    assert job.ledger.totals().waiting == 1
    job.check()


def test_log_probs_that_float32_cannot_hold_are_found(job: Job) -> None:
    """Finite, so that an older door let them in; minus infinity for the loss."""
    sender = job.member()
    leases = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(lease) for lease in leases], 0.0)
    blob = np.asarray([-0.1, -1e39, -0.1], "<f8").tobytes()
    job.ledger._db.connection.execute("UPDATE segments SET behavior = ? WHERE lease_id = 1", (blob,))
    assert [(one.lease_id, one.reason) for one in job.ledger.impose(LIMITS, FAIL_AFTER, 1.0)] == [(1, "malformed")]
    assert job.ledger.totals().discarded == {"malformed": 1}
    job.check()


def test_unscored_poison_is_not_scored_any_more(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [structs.replace(trajectory(lease), token_ids=[1, 2, 3, 70])], 0.0)
    assert job.ledger.unscored()
    job.ledger.impose(LIMITS, FAIL_AFTER, 1.0)
    assert job.ledger.unscored() == []
    job.check()


def test_what_fits_is_left_alone(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(lease, reward=1e6) for lease in leases], 0.0)
    assert job.ledger.impose(LIMITS, FAIL_AFTER, 1.0) == []
    assert job.ledger.totals().waiting == 2
    job.check()
