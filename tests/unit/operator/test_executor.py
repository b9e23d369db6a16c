"""The executor's order: what must be known or be there before something is made. The rest is tested on a real API server."""

from typing import Any

import pytest

from asyncppo_operator import names
from asyncppo_operator.children import Key
from asyncppo_operator.errors import ApiError
from asyncppo_operator.executor import Executor, NameTakenError
from asyncppo_operator.kinds import Resource
from asyncppo_operator.plan.planner import Plan

KEY = Key("ns", "guess")


def made(kind: str, name: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"namespace": KEY.namespace, "name": name}}


PLAN = Plan(
    apply=[made("StatefulSet", "guess-learner"), made("Service", "guess-learner"), made("Service", "guess-rollout")],
    once=[made("Secret", names.token(KEY.name))],
)


class Server:
    """Takes everything, but for what `refused` names; holds one claim, of `owner`, where that is given."""

    def __init__(self, owner: str = "", refused: str = "") -> None:
        self.owner, self.refused = owner, refused
        self.calls: list[str] = []

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        self.calls.append(f"get {name}")
        owners = {"ownerReferences": [{"uid": self.owner}]}
        return {"metadata": owners} if self.owner and name == names.storage(KEY.name) else None

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(f"create {manifest['metadata']['name']}")
        return {"metadata": {}, "data": {names.TOKEN_KEY: "dG9rZW4="}}

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(f"{manifest['kind']} {manifest['metadata']['name']}")
        if manifest["metadata"]["name"] == self.refused:
            raise ApiError("refused", 422)
        return {"metadata": {"generation": 1}}


async def carry_out(server: Server) -> Executor:
    executor = Executor(server, KEY, "mine")  # type: ignore[arg-type]
    await executor.carry_out(PLAN, [], {}, new=True, afresh=True)
    return executor


async def test_a_taken_name_leaves_nothing_behind_that_says_it_was_free() -> None:
    server = Server(owner="another")
    with pytest.raises(NameTakenError):
        await carry_out(server)
    assert server.calls == [f"get {names.storage(KEY.name)}"]


async def test_pods_come_after_all_that_they_find() -> None:
    server = Server()
    assert (await carry_out(server)).token == "token"
    assert server.calls[:2] == [f"get {names.storage(KEY.name)}", f"create {names.token(KEY.name)}"]
    assert server.calls[-1] == "StatefulSet guess-learner"


async def test_what_is_refused_keeps_nothing_else_from_being_made_but_pods() -> None:
    server = Server(refused="guess-learner")
    with pytest.raises(ApiError, match="refused"):
        await carry_out(server)
    assert "Service guess-rollout" in server.calls
    assert "StatefulSet guess-learner" not in server.calls
