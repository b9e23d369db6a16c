"""A job's loop over an API server in memory: what becomes of edits after the end, and of labels. The rest is tested on a real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from tests.unit.operator.builders import UID, raw_job
from tests.unit.operator.server import Server

from asyncppo_operator import names
from asyncppo_operator.children import Children, Key
from asyncppo_operator.kinds import STATEFUL_SET
from asyncppo_operator.plan.planner import Facts
from asyncppo_operator.reconcile import JobLoop, Tools
from asyncppo_operator.settings import Settings, Timing
from asyncppo_operator.slots import Slots
from asyncppo_operator.telemetry import Telemetry

KEY = Key("lab", "guess")
CLAIM = ("PersistentVolumeClaim", names.storage("guess"))
ENDED = {"observedGeneration": 1, "startTime": "2026-01-02T03:04:05Z", "completionTime": "2026-01-02T03:05:05Z"}
PROGRESS = {"progress": {"update": 10, "updates": 10, "summary": "10/10"}}


class Loop:
    """The loop of one job, and the job's edits."""

    def __init__(self, server: Server, raw: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self.server, self.raw = server, raw
        self.children = Children(lambda _: None)
        for kind in {kind for kind, _ in server.objects} - {STATEFUL_SET.kind}:
            self.children.objects_listed(kind, None, list(server.of_kind(kind)))
        self.children.sets_listed(None, list(server.of_kind(STATEFUL_SET.kind)))
        server.deleted = self._deleted
        timing = Timing(debounce_seconds=0.0, status_seconds=0.01)
        tools = Tools(
            cluster=server,  # type: ignore[arg-type]
            children=self.children,
            session=session,
            settings=Settings(timing=timing),
            telemetry=Telemetry(CollectorRegistry()),
            slots=Slots(4, 2),
            facts=Facts(),
            identity="test",
            install_key="a-key-of-this-installation-32-chars",
            blind=lambda: None,
        )
        self.loop = JobLoop(tools, KEY, raw, lambda: None)
        self.loop.start()

    def edit(self, labels: dict[str, str] | None = None, **spec: Any) -> None:
        """Top-level fields of the spec, which raise the generation; labels do not."""
        self.raw = deepcopy(self.raw)
        metadata = self.raw["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        metadata["generation"] += bool(spec)
        metadata["labels"] = labels or {}
        self.raw["spec"] |= spec
        self.loop.changed(self.raw)

    def _deleted(self, raw: dict[str, Any]) -> None:
        if raw["kind"] == STATEFUL_SET.kind:
            self.children.set_changed("DELETED", raw)
        else:
            self.children.object_changed(raw["kind"], "DELETED", raw)

    def condition(self, kind: str) -> tuple[str, str, str]:
        found: dict[str, str] = next((c for c in self.server.status.get("conditions", ()) if c["type"] == kind), {})
        return found.get("status", ""), found.get("reason", ""), found.get("message", "")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


Start = Callable[..., Loop]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a job's loop; with `status`, as of an operator that finds the job in this state."""
    begun: list[Loop] = []
    async with aiohttp.ClientSession() as session:

        def started(server: Server, status: dict[str, Any] | None = None, **spec: Any) -> Loop:
            raw = raw_job(**spec)
            begun.append(Loop(server, raw | ({"status": status} if status else {}), session))
            return begun[-1]

        yield started
        for one in begun:
            one.loop.close()


async def ran(start: Start) -> Server:
    """A server with the objects of a job that ran."""
    server = Server()
    first = start(server)
    await until(lambda: first.condition("Reconciled")[0] == "True")
    first.loop.close()
    return server


def ended(phase: str) -> dict[str, Any]:
    return {"phase": phase, "message": "as it ended", **ENDED, **PROGRESS}


async def over(start: Start, phase: str) -> Loop:
    """A job that ended, found by a new operator."""
    server = await ran(start)
    loop = start(server, ended(phase))
    await until(lambda: ("StatefulSet", "guess-learner") not in server.objects)
    await until(lambda: loop.condition("Accepted")[0] == "True")
    return loop


async def test_more_updates_make_a_complete_job_go_on(start: Start) -> None:
    loop = await over(start, "Complete")
    loop.edit(algorithm={"updates": 20})
    await until(lambda: loop.server.status["phase"] == "Pending")
    await until(lambda: ("StatefulSet", "guess-learner") in loop.server.objects)
    assert loop.condition("Accepted")[:2] == ("True", "Accepted")
    assert "20" in loop.server.objects["ConfigMap", "guess-job"]["data"]["job.json"]
    assert "completionTime" not in loop.server.status


async def test_without_its_volume_it_does_not_go_on(start: Start) -> None:
    loop = await over(start, "Complete")
    del loop.server.objects[CLAIM]
    loop.edit(algorithm={"updates": 20})
    await until(lambda: loop.condition("Accepted")[1] == "JobFinished")
    assert loop.server.status["phase"] == "Complete"
    assert CLAIM not in loop.server.objects


async def test_with_the_volume_of_another_it_does_not_go_on(start: Start) -> None:
    loop = await over(start, "Complete")
    loop.server.objects[CLAIM]["metadata"]["labels"][names.LABEL_UID] = "another"
    loop.edit(algorithm={"updates": 20}, learner={"retainStorage": True})
    await until(lambda: loop.condition("Accepted")[1] == "JobFinished")
    assert loop.server.objects[CLAIM]["metadata"]["ownerReferences"][0]["uid"] == UID, "not ours to change"


@pytest.mark.parametrize("edit", [{"activeDeadlineSeconds": 300}, {"algorithm": {"updates": 20}}])
async def test_a_failed_job_says_that_nothing_happens(start: Start, edit: dict[str, Any]) -> None:
    loop = await over(start, "Failed")
    loop.edit(**edit)
    await until(lambda: loop.condition("Accepted")[1] == "JobFinished")
    assert "nothing happens" in loop.condition("Accepted")[2]
    assert (loop.server.status["phase"], loop.server.status["message"]) == ("Failed", "as it ended")
    assert ("StatefulSet", "guess-learner") not in loop.server.objects


async def test_an_operator_started_later_says_the_same(start: Start) -> None:
    loop = await over(start, "Failed")
    loop.edit(activeDeadlineSeconds=300)
    await until(lambda: loop.condition("Accepted")[1] == "JobFinished")
    told = loop.condition("Accepted")
    loop.loop.close()
    server, status = loop.server, deepcopy(loop.server.status)
    server.status = {}
    again = start(server, status | {"conditions": []}, activeDeadlineSeconds=300)
    await until(lambda: again.condition("Accepted")[0] != "")
    assert again.condition("Accepted") == told


@pytest.mark.parametrize("phase", ["Complete", "Failed"])
async def test_the_volume_of_a_finished_job_can_be_kept_and_given_back(start: Start, phase: str) -> None:
    loop = await over(start, phase)

    def owners() -> int:
        return len(loop.server.objects[CLAIM]["metadata"].get("ownerReferences") or [])

    assert owners() == 1
    loop.edit(learner={"retainStorage": True})
    await until(lambda: owners() == 0)
    loop.edit(learner={"retainStorage": False})
    await until(lambda: owners() == 1)
    assert loop.condition("Accepted")[0] == "True"


async def test_a_label_reaches_the_objects_though_it_raises_no_generation(start: Start) -> None:
    server = Server()
    loop = start(server)
    await until(lambda: loop.condition("Reconciled")[0] == "True")
    loop.edit(labels={"team": "a"})
    await until(lambda: server.objects["StatefulSet", "guess-learner"]["metadata"]["labels"].get("team") == "a")
    await until(lambda: server.objects[CLAIM]["metadata"]["labels"].get("team") == "a")
    assert server.status["observedGeneration"] == 1
