"""Numbers that no ledger can hold: refused in the ledger's own words, and nothing is written."""

from collections.abc import Callable

import msgspec
import pytest
from tests.unit.ledger.builders import Job, trajectory

from asyncppo.wire.envelope import Envelope
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import SegmentKey

TOO_LARGE = (2**63, 2**64 - 1, -(2**63) - 1)


@pytest.mark.parametrize("number", TOO_LARGE)
@pytest.mark.parametrize(
    "call",
    [
        lambda job, sender, n: job.ledger.ready(sender, n, "hash", 1.0),
        lambda job, sender, n: job.ledger.grant(sender, n, 1, 8, 30.0, 1.0),
        lambda job, sender, n: job.ledger.begin("c", n, 1.0),
        lambda job, sender, n: job.ledger.restore(n, 1.0),
        lambda job, sender, n: job.ledger.commit_checkpoint(n, "checkpoints/x", 1.0),
        lambda job, sender, n: job.ledger.version(n) or refuse(),
        lambda job, sender, n: job.ledger.trajectory(n) or refuse(),
        lambda job, sender, n: job.ledger.unscored(n) or refuse(),
        lambda job, sender, n: job.ledger.heartbeat(sender, 0, [n], 1.0).lost or None,
        lambda job, sender, n: job.ledger.give_back(sender, [n], 1.0) or refuse(),
        lambda job, sender, n: job.ledger.load_groups([n]),
        lambda job, sender, n: job.ledger.items([SegmentKey(n, n, "d")]) or refuse(),
    ],
)
def test_a_number_beyond_64_bits_is_refused(
    job: Job, number: int, call: Callable[[Job, Envelope, int], object]
) -> None:
    sender = job.member()
    before = (job.ledger.totals(), job.ledger.view(), job.ledger.events())
    try:
        answer = call(job, sender, number)
    except LedgerRefusedError as error:
        answer = error
    assert isinstance(answer, LedgerRefusedError | list)
    assert (job.ledger.totals(), job.ledger.view(), job.ledger.events()) == before


def refuse() -> LedgerRefusedError:
    """Nothing there is an answer too."""
    return LedgerRefusedError("Nothing", "nothing there")


@pytest.mark.parametrize("number", TOO_LARGE)
@pytest.mark.parametrize("field", ["lease_id", "group_id", "version", "index"])
def test_an_upload_that_carries_one_costs_nothing_but_itself(job: Job, number: int, field: str) -> None:
    sender = job.member()
    leases = job.grant(sender, 2)
    wrong = trajectory(leases[0])
    if field in ("lease_id", "group_id"):
        wrong = msgspec.structs.replace(wrong, **{field: number})
    else:
        segment = msgspec.structs.replace(wrong.segments[0], **{field: number})
        wrong = msgspec.structs.replace(wrong, segments=[segment])
    try:
        reasons = [refusal.reason for refusal in job.ledger.receive(sender, [wrong], 1.0).reply.refused]
    except LedgerRefusedError as error:
        reasons = [error.reason]
    assert reasons in (["OutOfRange"], ["malformed"], ["unknown_lease"])
    # a finished trajectory that is malformed is the loss of its place, and no more
    assert job.ledger.totals().discarded == ({"malformed": 1} if reasons == ["malformed"] else {})
    assert job.ledger.totals().in_flight == (1 if reasons == ["malformed"] else 2)
    job.check()
