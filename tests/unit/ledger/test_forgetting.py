"""Groups given up long ago leave their counts, not their rows."""

from msgspec import structs
from tests.unit.ledger.builders import Job, group_counts, trajectory

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease

KEEP, LIMIT = 4, 2


def fail_groups(job: Job, sender: Envelope, number: int) -> list[Lease]:
    """So many groups are given up: one place is lost three times. The last leases of each."""
    last: list[Lease] = []
    before = group_counts(job.ledger).discarded
    while group_counts(job.ledger).discarded < before + number:
        (lease,) = job.grant(sender, 1)
        wrong = structs.replace(
            trajectory(lease, [job.ledger.view().announced], end_reason="environment_error"), error="KeyError: 'x'"
        )
        job.ledger.receive(sender, [wrong], 1.0)
        last.append(lease)
    return last


def rows(job: Job) -> dict[str, int]:
    connection = job.ledger._db.connection
    tables = ("groups", "slots", "leases", "trajectories", "segments", "bodies", "events")
    return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def test_thousands_of_failures_do_not_make_the_ledger_grow(job: Job) -> None:
    sender = job.member()
    sizes = []
    for _ in range(8):
        fail_groups(job, sender, LIMIT)
        job.ledger.forget(2.0, keep=KEEP, limit=LIMIT)
        job.check()
        sizes.append(rows(job))
    # One event says of each turn what was forgotten; all the rest stands still.
    for table in ("groups", "slots", "leases", "trajectories", "segments", "bodies"):
        assert sizes[-1][table] == sizes[3][table], table
    totals = job.ledger.totals()
    assert totals.discarded == {"environment_error": 3 * 8 * LIMIT}
    assert totals.balanced
    job.reopen()
    assert job.ledger.totals() == totals
    job.check()


def test_what_was_said_of_an_error_outlives_the_tokens_and_goes_with_the_row(job: Job) -> None:
    sender = job.member()
    leases = fail_groups(job, sender, KEEP + LIMIT)

    def said(lease: Lease) -> str | None:
        found = job.ledger.trajectory(lease.lease_id)
        return None if found is None else found.error

    assert said(leases[0]) == "KeyError: 'x'"
    job.ledger.prune(2.0, sample_every=0)
    found = job.ledger.trajectory(leases[0].lease_id)
    assert found is not None
    assert (found.trajectory, found.error) == (None, "KeyError: 'x'")
    assert job.ledger.forget(3.0, keep=KEEP, limit=LIMIT) == LIMIT
    assert (said(leases[0]), said(leases[-1])) == (None, "KeyError: 'x'")
    kept = sum(event.kind == "trajectory_error" for event in job.ledger.events(limit=1000))
    assert kept == len(leases) - 3 * LIMIT
    job.check()


def test_few_are_left_alone(job: Job) -> None:
    sender = job.member()
    fail_groups(job, sender, KEEP + LIMIT - 1)
    before = rows(job)
    assert job.ledger.forget(2.0, keep=KEEP, limit=LIMIT) == 0
    assert rows(job) == before


def test_numbers_are_never_given_again_and_late_answers_are_refused(job: Job) -> None:
    sender = job.member()
    leases = fail_groups(job, sender, 6)
    while job.ledger.forget(2.0, keep=0, limit=1):
        job.check()
    assert rows(job)["groups"] >= 1
    (fresh,) = job.grant(sender, 1)
    assert fresh.lease_id > max(lease.lease_id for lease in leases)
    assert fresh.group_id > max(lease.group_id for lease in leases)
    again = job.ledger.receive(sender, [trajectory(leases[0])], 3.0)
    assert [refusal.reason for refusal in again.reply.refused] == ["unknown_lease"]
    assert not again.fenced
    job.check()


def test_what_a_step_took_and_what_lives_stays(job: Job) -> None:
    sender = job.member()
    taken = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(lease) for lease in taken], 1.0)
    job.sync(sender, [taken[0].group_id])
    fail_groups(job, sender, 6)
    open_one = job.grant(sender, 1)
    while job.ledger.forget(2.0, keep=0, limit=1):
        pass
    kept = job.ledger.trajectory(taken[0].lease_id)
    assert kept is not None
    assert kept.trained_version == 1
    assert job.ledger.trajectory(open_one[0].lease_id) is not None
    job.check()
