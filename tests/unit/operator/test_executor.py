"""The executor's order and its test whose an object is: what must be known or be there before something is made, what is left alone.

The rest is tested on a real API server.
"""

import base64
from typing import Any

import pytest
from tests.unit.operator.server import Server

from asyncppo_operator import names
from asyncppo_operator.children import Children, Key
from asyncppo_operator.errors import ApiError
from asyncppo_operator.executor import Executor, NameTakenError
from asyncppo_operator.kinds import CLAIM, SECRET, SERVICE
from asyncppo_operator.plan.planner import Plan, Ref

Object = dict[str, Any]
KEY = Key("ns", "guess")
MINE = "mine"


def manifest(kind: str, name: str) -> Object:
    """As a plan has it: ours."""
    api = {"StatefulSet": "apps/v1"}.get(kind, "v1")
    labels = {names.LABEL_JOB: KEY.name, names.LABEL_UID: MINE}
    return {"apiVersion": api, "kind": kind, "metadata": {"namespace": KEY.namespace, "name": name, "labels": labels}}


PLAN = Plan(
    apply=[
        manifest("PersistentVolumeClaim", names.storage(KEY.name)),
        manifest("StatefulSet", "guess-learner"),
        manifest("Service", "guess-learner"),
        manifest("Service", "guess-rollout"),
    ],
    once=[manifest("Secret", names.token(KEY.name)) | {"stringData": {"token": "token"}}],
)


class Scene:
    """One job's executor, and what it sees."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.children = Children(lambda key: None)
        self.executor = Executor(server, self.children, KEY, MINE)  # type: ignore[arg-type]

    async def carry_out(self, plan: Plan = PLAN, new: bool = True, afresh: bool = False) -> None:
        await self.executor.carry_out(plan, [], self.children.sets(KEY), new=new, afresh=afresh)


def foreign(kind: str, name: str, **metadata: Any) -> Object:
    return {"kind": kind, "metadata": {"name": name, "uid": f"uid of {name}", **metadata}}


EVERY = [(m["kind"], m["metadata"]["name"]) for m in (*PLAN.once, *PLAN.apply)]


@pytest.mark.parametrize(("kind", "name"), EVERY)
async def test_a_name_of_somebody_else_is_told_and_nothing_is_made(kind: str, name: str) -> None:
    scene = Scene(Server(foreign(kind, name)))
    with pytest.raises(NameTakenError, match=f"{kind} {name}"):
        await scene.carry_out()
    assert scene.server.writes == []


async def test_all_names_that_are_taken_are_told_at_once() -> None:
    scene = Scene(Server(*(foreign(*each) for each in EVERY)))
    with pytest.raises(NameTakenError) as raised:
        await scene.carry_out()
    assert all(f"{kind} {name}" in str(raised.value) for kind, name in EVERY)


@pytest.mark.parametrize(("kind", "name"), EVERY)
async def test_what_somebody_else_put_in_an_objects_place_later_is_left_alone(kind: str, name: str) -> None:
    scene = Scene(Server())
    await scene.carry_out()
    old = scene.server.objects[(kind, name)]
    scene.children.object_changed(kind, "DELETED", old)
    scene.server.objects[(kind, name)] = theirs = foreign(kind, name)
    with pytest.raises(NameTakenError, match=f"{kind} {name}"):
        await scene.carry_out(new=False, afresh=True)
    assert scene.server.objects[(kind, name)] is theirs


async def test_pods_come_after_all_that_they_find() -> None:
    scene = Scene(Server())
    await scene.carry_out()
    assert scene.executor.token == "token"
    assert scene.server.writes[0] == "Secret guess-token"
    assert scene.server.writes[-1] == "StatefulSet guess-learner"


async def test_an_unchanged_plan_costs_no_call() -> None:
    scene = Scene(Server())
    await scene.carry_out()
    scene.server.writes.clear()
    scene.server.looks.clear()
    await scene.carry_out(new=False)
    assert (scene.server.writes, scene.server.looks) == ([], [])


@pytest.mark.parametrize(("kind", "name"), EVERY)
async def test_what_is_deleted_is_made_again_and_nothing_else(kind: str, name: str) -> None:
    scene = Scene(Server())
    await scene.carry_out()
    scene.server.writes.clear()
    scene.children.object_changed(kind, "DELETED", scene.server.objects.pop((kind, name)))
    await scene.carry_out(new=False)
    assert scene.server.writes == [f"{kind} {name}"]
    assert base64.b64decode(scene.server.objects[("Secret", "guess-token")]["data"]["token"]) == b"token"


async def test_what_is_going_is_waited_for() -> None:
    scene = Scene(Server())
    await scene.carry_out()
    scene.server.writes.clear()
    going = scene.server.objects[("Service", "guess-learner")]
    going["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    scene.children.object_changed("Service", "MODIFIED", going)
    await scene.carry_out(new=False, afresh=True)
    assert "Service guess-learner" not in scene.server.writes


async def test_what_is_refused_keeps_nothing_else_from_being_made_but_pods() -> None:
    scene = Scene(Server(refused="guess-learner"))
    with pytest.raises(ApiError, match="refused"):
        await scene.carry_out()
    assert "Service guess-rollout" in scene.server.writes
    assert "StatefulSet guess-learner" not in scene.server.writes


@pytest.mark.parametrize("identity", [("Service", "guess-rollout"), ("Secret", "guess-token")])
async def test_what_is_not_this_jobs_keeps_no_set_that_runs_from_being_scaled(identity: tuple[str, str]) -> None:
    scene = Scene(Server())
    await scene.carry_out()
    scene.children.object_changed(identity[0], "DELETED", scene.server.objects[identity])
    scene.server.objects[identity] = foreign(*identity)
    scene.server.writes.clear()
    scaled = [m | {"spec": {"replicas": 0}} if m["kind"] == "StatefulSet" else m for m in PLAN.apply]
    with pytest.raises(NameTakenError):
        await scene.carry_out(Plan(apply=scaled, once=PLAN.once), new=False)
    assert scene.server.writes == ["StatefulSet guess-learner"]


CLAIM_NAME = names.storage(KEY.name)
ADOPTING = Plan(apply=PLAN.apply, once=PLAN.once, adopt=[Ref("v1", CLAIM.kind, CLAIM_NAME)])


async def test_a_volume_that_was_kept_is_adopted_only_where_that_is_asked_for() -> None:
    kept = foreign(CLAIM.kind, CLAIM_NAME, labels={names.LABEL_JOB: KEY.name, names.LABEL_UID: "earlier"})
    scene = Scene(Server(kept))
    scene.children.object_changed(CLAIM.kind, "ADDED", kept | {"metadata": kept["metadata"] | {"namespace": "ns"}})
    with pytest.raises(NameTakenError, match=r"learner\.adoptStorage"):
        await scene.carry_out()
    assert scene.server.writes == []
    await scene.carry_out(ADOPTING)
    adopted = scene.server.objects[(CLAIM.kind, CLAIM_NAME)]["metadata"]
    assert (adopted["uid"], adopted["labels"][names.LABEL_UID]) == (kept["metadata"]["uid"], MINE)


@pytest.mark.parametrize(
    "metadata",
    [{"ownerReferences": [{"uid": "another", "controller": True}]}, {"deletionTimestamp": "2026-01-02T03:04:05Z"}],
)
async def test_a_volume_that_is_somebodys_or_going_is_never_adopted(metadata: Object) -> None:
    scene = Scene(Server(foreign(CLAIM.kind, CLAIM_NAME, **metadata)))
    with pytest.raises(NameTakenError):
        await scene.carry_out(ADOPTING)
    assert scene.server.writes == []


async def test_what_cannot_be_made_again_is_not() -> None:
    scene = Scene(Server())
    await scene.carry_out()
    scene.children.object_changed(CLAIM.kind, "DELETED", scene.server.objects.pop((CLAIM.kind, CLAIM_NAME)))
    scene.server.writes.clear()
    lost = Plan(apply=PLAN.apply, once=PLAN.once, never_again=[Ref("v1", CLAIM.kind, CLAIM_NAME)])
    for new in (False, True):
        await scene.carry_out(lost, new=new)
    assert scene.server.writes == []


async def test_a_finished_job_deletes_what_is_its_own_alone() -> None:
    scene = Scene(Server())
    await scene.carry_out()
    scene.server.writes.clear()
    scene.children.object_changed(SERVICE.kind, "DELETED", scene.server.objects[("Service", "guess-rollout")])
    theirs = scene.server.objects[("Service", "guess-rollout")] = foreign("Service", "guess-rollout")
    over = Plan(delete=[Ref("v1", "Service", "guess-learner"), Ref("v1", "Service", "guess-rollout")])
    for _ in range(2):
        await scene.carry_out(over, new=False)
    assert scene.server.writes == ["delete Service guess-learner"]
    assert scene.server.objects[("Service", "guess-rollout")] is theirs


async def test_a_secret_without_an_owner_is_no_token_of_this_job() -> None:
    scene = Scene(Server(foreign(SECRET.kind, names.token(KEY.name)) | {"data": {"token": "c3RvbGVu"}}))
    await scene.executor.recall_token()
    assert scene.executor.token == ""
    with pytest.raises(NameTakenError):
        await scene.carry_out(new=False)
    assert scene.executor.token == ""
