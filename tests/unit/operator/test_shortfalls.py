"""Complaints of StatefulSets, and when a job believes them."""

from typing import Any

import pytest

from asyncppo_operator import shortfalls
from asyncppo_operator.names import Role
from asyncppo_operator.shortfalls import Complaints, Shortfalls
from asyncppo_operator.views import SetView

QUOTA = "exceeded quota: pods=0"


def complaint(
    text: str = QUOTA, *, uid: str = "u1", name: str = "e1", at: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ns", "name": name},
        "involvedObject": {"kind": "StatefulSet", "uid": uid},
        "reason": "FailedCreate",
        "message": text,
        "lastTimestamp": at,
    }


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def complaints(told: list[str]) -> Complaints:
    return Complaints(told.append)


def test_the_newest_counts_and_its_job_is_told(complaints: Complaints, told: list[str]) -> None:
    complaints.changed("ADDED", complaint("new", name="e2", at="2026-01-01T00:00:09Z"))
    complaints.changed("ADDED", complaint("old"))
    assert complaints.of("u1") == "new"
    assert told == ["u1"]
    assert complaints.of("u2") == ""


def test_an_event_that_expires_takes_what_it_said_with_it(complaints: Complaints) -> None:
    complaints.changed("ADDED", complaint())
    complaints.changed("DELETED", complaint(name="another"))
    assert complaints.of("u1") == QUOTA
    complaints.changed("DELETED", complaint())
    assert complaints.of("u1") == ""


def test_a_list_is_all_there_is_in_its_namespace(complaints: Complaints) -> None:
    complaints.changed("ADDED", complaint())
    complaints.listed("elsewhere", [])
    assert complaints.of("u1") == QUOTA
    complaints.listed("ns", [complaint(uid="u2")])
    assert (complaints.of("u1"), complaints.of("u2")) == ("", QUOTA)
    complaints.listed(None, [])
    assert complaints.of("u2") == ""


def test_an_event_without_anything_is_no_mistake(complaints: Complaints) -> None:
    complaints.changed("ADDED", {})
    assert complaints.of("u1") == ""


def test_believed_when_pods_have_been_missing_for_a_while(
    complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(shortfalls.time, "monotonic", lambda: now)
    own = Shortfalls(complaints)
    desired, sets = {Role.LEARNER: 1}, {Role.LEARNER: SetView("s", "u1", 1, 0, 1)}
    assert own.look(desired, [], sets) is None  # nothing is complained of: whoever complains will wake the job
    complaints.changed("ADDED", complaint())
    assert own.look(desired, [], sets) == shortfalls.PATIENCE_SECONDS
    assert own.found == {}
    now += shortfalls.PATIENCE_SECONDS
    assert own.look(desired, [], sets) is None
    assert own.found == {Role.LEARNER: QUOTA}
    assert own.look({Role.LEARNER: 0}, [], sets) is None
    assert own.found == {}
    assert own.look(desired, [], {}) is None  # no StatefulSet, no complaint
    assert own.found == {}
