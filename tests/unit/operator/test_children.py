"""What is seen of a job's objects: whose they are, and when a job is to look again."""

from typing import Any

import pytest
from tests.unit.operator.builders import UID

from asyncppo_operator import names
from asyncppo_operator.children import Children, Key
from asyncppo_operator.views import child_view

Object = dict[str, Any]
KEY = Key("lab", "guess")
SERVICE = ("Service", "guess-learner")


def labelled(uid: str = "s1", job_uid: str = UID, namespace: str = "lab", **metadata: Any) -> Object:
    labels = {names.LABEL_JOB: "guess", names.LABEL_UID: job_uid}
    return {"metadata": {"name": "guess-learner", "namespace": namespace, "uid": uid, "labels": labels} | metadata}


@pytest.fixture
def touched() -> list[Key]:
    return []


@pytest.fixture
def children(touched: list[Key]) -> Children:
    return Children(touched.append)


def test_what_a_job_made_itself_wakes_it_not(children: Children, touched: list[Key]) -> None:
    children.made("Service", labelled())
    children.object_changed("Service", "ADDED", labelled())
    children.object_changed("Service", "MODIFIED", labelled(resourceVersion="9"))
    assert children.objects(KEY)[SERVICE].belongs_to(UID)
    assert touched == []


def test_what_is_deleted_or_changes_hands_wakes_it(children: Children, touched: list[Key]) -> None:
    children.made("Service", labelled())
    children.object_changed("Service", "MODIFIED", labelled(deletionTimestamp="2026-01-02T03:04:05Z"))
    assert len(touched) == 1
    children.object_changed("Service", "DELETED", labelled())
    assert len(touched) == 2
    assert children.objects(KEY) == {}


def test_the_deletion_of_an_earlier_object_of_the_name_is_no_news(children: Children, touched: list[Key]) -> None:
    children.made("Service", labelled("s2"))
    children.object_changed("Service", "DELETED", labelled("s1"))
    assert children.objects(KEY)[SERVICE].uid == "s2"
    assert touched == []


def test_a_new_list_tells_what_a_watch_has_missed_in_its_namespace_alone(
    children: Children, touched: list[Key]
) -> None:
    for namespace in ("lab", "other"):
        children.made("Service", labelled(namespace=namespace))
        children.made("Secret", labelled(namespace=namespace))
    children.objects_listed("Service", "lab", [])
    assert touched == [KEY]
    assert set(children.objects(KEY)) == {("Secret", "guess-learner")}
    assert set(children.objects(Key("other", "guess"))) == {("Secret", "guess-learner"), SERVICE}
    children.objects_listed("Service", None, [labelled(namespace="other")])
    assert touched == [KEY], "the same as before"


@pytest.mark.parametrize(
    ("metadata", "mine"),
    [
        ({"labels": {names.LABEL_UID: UID}}, True),
        ({"ownerReferences": [{"uid": UID, "controller": True}]}, True),
        ({"ownerReferences": [{"uid": "x"}, {"uid": UID, "controller": True}]}, True),
        ({"labels": {names.LABEL_UID: "earlier"}}, False),
        ({"labels": {names.LABEL_JOB: "guess", names.LABEL_MANAGED: names.FIELD_MANAGER}}, False),
        ({}, False),
    ],
)
def test_whose_an_object_is_says_its_label_or_its_owner(metadata: Object, mine: bool) -> None:
    assert child_view("Service", {"metadata": {"name": "n", "uid": "u"} | metadata}).belongs_to(UID) is mine
