"""The source of tokens: one key for an installation, one set of tokens for a job whatever restarts, and nobody who runs is locked out."""

import asyncio
import base64
from typing import Any
from unittest.mock import MagicMock

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from tests.unit.operator.builders import SETTINGS, raw_job

from asyncppo.wire import routes
from asyncppo.wire.membership import Member, MemberState
from asyncppo.wire.server import answer, application, endpoint, serve
from asyncppo.wire.syncing import Begin, Pause, SyncView
from asyncppo.wire.tokens import Role, control_token, identify, only, role_key, token_of
from asyncppo_operator import names
from asyncppo_operator.children import Children, Key
from asyncppo_operator.coordination import Coordination
from asyncppo_operator.errors import ConflictError, SettingsError
from asyncppo_operator.executor import Executor
from asyncppo_operator.installkey import install_key
from asyncppo_operator.kinds import Resource
from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.plan.identity import token_secret
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Observed, plan

Object = dict[str, Any]


def stored(manifest: Object) -> Object:
    """A Secret as an API server gives it back."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in manifest["stringData"].items()}
    return {**{key: value for key, value in manifest.items() if key != "stringData"}, "data": data}


class Server:
    """Secrets, by name. `faster`: what another operator makes just before us."""

    def __init__(self, faster: Object | None = None) -> None:
        self.secrets: dict[str, Object] = {}
        self.faster = faster

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        assert resource.kind == "Secret"
        return self.secrets.get(name)

    async def create(self, manifest: Object) -> Object:
        name = manifest["metadata"]["name"]
        if self.faster is not None:
            self.secrets[name] = self.faster
        if name in self.secrets:
            raise ConflictError("there is one", 409)
        self.secrets[name] = stored(manifest)
        return self.secrets[name]


async def key_of(server: Server) -> str:
    return await install_key(server, "system", "install-key")  # type: ignore[arg-type]


async def test_the_key_is_drawn_once_and_never_again() -> None:
    server = Server()
    first = await key_of(server)
    assert len(first) >= 43
    assert await key_of(server) == first
    made = server.secrets["install-key"]
    assert made["metadata"]["namespace"] == "system"
    # not one of the objects that are watched, and deleted with jobs
    assert names.LABEL_MANAGED not in made["metadata"]["labels"]
    assert "ownerReferences" not in made["metadata"]
    assert await key_of(Server()) != first


async def test_of_two_operators_that_start_at_once_both_have_the_key_of_the_first() -> None:
    theirs = stored({"kind": "Secret", "metadata": {}, "stringData": {"key": "k" * 43}})
    assert await key_of(Server(faster=theirs)) == "k" * 43


@pytest.mark.parametrize(
    "data", [{}, {"key": ""}, {"key": "!!!"}, {"key": base64.b64encode(b"short").decode()}, {"key": "//79"}]
)
async def test_a_secret_without_a_key_is_not_made_up_for(data: Object) -> None:
    server = Server()
    server.secrets["install-key"] = {"kind": "Secret", "metadata": {}, "data": data}
    with pytest.raises(SettingsError, match=r"system/install-key.*restore it"):
        await key_of(server)
    assert server.secrets["install-key"]["data"] == data


# --- a job's Secret -------------------------------------------------------------------------------------------------------
def job_of(**spec: Any) -> Any:
    made = accept(raw_job(**spec), None, SETTINGS).job
    assert made is not None
    return made


async def recalled(secret: Object | None) -> Executor:
    """What an operator that starts finds."""
    server = MagicMock()

    async def get(resource: Resource, namespace: str, name: str) -> Object | None:
        return secret

    server.get = get
    job = job_of()
    executor = Executor(
        server, Children(lambda key: None), Key(job.metadata.namespace, job.metadata.name), job.metadata.uid
    )
    await executor.recall_token()
    return executor


def secret_of(job: Any, observed: Observed) -> Object:
    (made,) = plan(job, Target.RUN, observed, SETTINGS).once
    return {**stored(made), "metadata": {**made["metadata"], "uid": "uid of the secret"}}


async def test_a_deleted_secret_comes_back_the_same_after_a_restart() -> None:
    job = job_of()
    first = secret_of(job, Observed(token=control_token("the-install-key", job.metadata.uid)))
    again = secret_of(job, Observed(token=control_token("the-install-key", job.metadata.uid)))
    assert first["data"] == again["data"]
    assert set(first["data"]) == {"control", "rollout", "old-logit"}


async def test_a_secret_that_is_there_is_believed_whatever_the_install_key_is() -> None:
    job = job_of()
    executor = await recalled(secret_of(job, Observed(token="of-an-install-key-that-is-lost")))
    assert (executor.token, executor.single_token) == ("of-an-install-key-that-is-lost", False)


async def test_a_job_of_before_roles_had_tokens_runs_on_with_its_own() -> None:
    job = job_of()
    old = {**stored(token_secret(job, "one-for-all", single=True))}
    old["metadata"] = {**secret_of(job, Observed(token="x"))["metadata"]}
    executor = await recalled(old)
    assert (executor.token, executor.single_token) == ("one-for-all", True)
    # deleted by somebody: the same comes back, for its pods hold it
    made = secret_of(job, Observed(token=executor.token, single_token=executor.single_token))
    assert made["data"] == old["data"]


async def test_a_running_job_of_before_is_coordinated_with_the_one_token_its_pods_hold() -> None:
    await synced("one-for-all", only("one-for-all"), "one-for-all", single=True)


async def test_a_rollout_is_shown_its_own_token_and_never_controls() -> None:
    own = token_of("control", Role.ROLLOUT, "r0")
    await synced("control", identify("control"), own, single=False)
    assert own == f"rollout.r0.{own.rpartition('.')[2]}"
    assert role_key("control", Role.ROLLOUT) not in own


async def synced(control: str, learner_knows: Any, rollout_token: str, *, single: bool) -> None:
    """An operator's coordinator begins a sync of a job: the learner is shown control, its one rollout what it holds itself."""
    shown: list[str] = []
    paused = asyncio.Event()

    async def pause(message: Pause) -> Pause:
        paused.set()
        return message

    def rollout() -> web.Application:
        app = application(only(rollout_token), CollectorRegistry(), lambda: "")

        async def told(request: web.Request) -> web.StreamResponse:
            shown.append(request.headers["Authorization"])
            return await endpoint(Pause, pause)(request)

        app.router.add_post(routes.PAUSE, told)
        return app

    at_rollout, rollout_port = await serve(rollout(), "127.0.0.1", 0)
    learner = application(learner_knows, CollectorRegistry(), lambda: "")

    def view(epoch: int) -> SyncView:
        member = Member("r0", 1, f"http://127.0.0.1:{rollout_port}", MemberState.READY, 0)
        return SyncView(
            job_uid="u", column="Barrier", epoch=epoch, owner="operator-me", open=epoch > 0, sealed=False, version=0, wanted=True,
            stepped=False, members=[member], record=None, canary=None,
        )  # fmt: skip

    async def watched(_: web.Request) -> web.StreamResponse:
        return answer(view(0))

    async def begun(_: Begin) -> SyncView:
        return view(1)

    learner.router.add_get(routes.SYNC, watched)
    learner.router.add_post(routes.SYNC_BEGIN, endpoint(Begin, begun))
    at_learner, learner_port = await serve(learner, "127.0.0.1", 0)
    coordination = Coordination("me")
    coordination.aim(f"http://127.0.0.1:{learner_port}", control, job_of(), single)
    try:
        await asyncio.wait_for(paused.wait(), 20)
    finally:
        coordination.close()
        await asyncio.sleep(0.1)
        await at_learner.cleanup()
        await at_rollout.cleanup()
    assert set(shown) == {f"Bearer {rollout_token}"}
