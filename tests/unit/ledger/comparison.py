"""What must be equal between the ledger and the model after every step. Owns that list."""

from msgspec import structs
from tests.unit.ledger.builders import group_counts
from tests.unit.ledger.model import Model

from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LeaseState

LEASE_STATES = {
    "in_flight": LeaseState.IN_FLIGHT,
    "received": LeaseState.RECEIVED,
    "expired": LeaseState.EXPIRED,
    "returned": LeaseState.RETURNED,
}


def compare(ledger: Ledger, model: Model) -> None:
    """Figures, both equations, and the state of everything."""
    totals = ledger.totals()
    assert totals.balanced
    assert totals == ledger.recount()
    expected = model.totals()
    assert expected.balanced
    assert structs.replace(totals, refused={}) == expected
    _compare_versions(ledger, model)
    _compare_groups(ledger, model)
    assert {one.name: (one.incarnation, one.state.lower()) for one in ledger.members()} == {
        name: (member.incarnation, member.state) for name, member in model.members.items()
    }
    assert {(item.key.lease_id, item.key.index) for item in ledger.unscored()} == {
        (lease, index)
        for lease, found in model.leases.items()
        for index, segment in enumerate(found.segments)
        if segment.state == "unscored"
    }
    assert [(one.lease_state, one.fate or "", one.reason) for one in ledger.trajectories(limit=1000)] == [
        (LEASE_STATES[lease.state], lease.fate.capitalize(), lease.reason) for lease in model.leases.values()
    ]


def _compare_versions(ledger: Ledger, model: Model) -> None:
    view, epoch = ledger.view(), model.epoch
    assert (view.epoch, view.open, view.sealed) == (epoch.number, epoch.open, epoch.state == "sealed")
    assert (view.version, view.announced, view.sealed_version) == (model.versions[-1], model.announced, model.sealed)
    assert {row.record.version for row in ledger.versions() if row.abandoned} == model.abandoned
    if view.open:
        assert {member.name: member.incarnation for member in view.members} == epoch.members
        assert view.target == epoch.target


def _compare_groups(ledger: Ledger, model: Model) -> None:
    counts, states = group_counts(ledger), [group.state for group in model.groups]
    assert (counts.open, counts.ready, counts.trained, counts.discarded) == tuple(
        states.count(state) for state in ("open", "ready", "trained", "discarded")
    )
    ready = {one.group_id: one for one in ledger.ready_groups()}
    assert sorted(ready) == [number for number, state in enumerate(states) if state == "ready"]
    for number, one in ready.items():
        versions = [
            segment.version for lease, segment in model.segments() if lease.group == number and lease.fate == "waiting"
        ]
        assert (one.oldest_version, one.newest_version) == (min(versions), max(versions))
        assert (not one.unscored) is model.trainable(number)
    assert {one.group_id: (one.received, one.in_flight, one.missing) for one in ledger.open_groups()} == {
        number: tuple(sum(slot.state == state for slot in group.slots) for state in ("filled", "leased", "free"))
        for number, group in enumerate(model.groups)
        if group.state == "open"
    }
