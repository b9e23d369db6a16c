"""A new operator and the jobs of an earlier one: nothing of a running job is rendered anew, until it starts anew anyway."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.earlier.objects import VERSIONS, recorded
from tests.unit.operator.builders import SETTINGS, pod

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import parse_manifest
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.plan.applied import applied
from asyncppo_operator.plan.identity import manifest_text
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Observed, plan, to_hold
from asyncppo_operator.plan.pods import Held, pod_template
from asyncppo_operator.settings import Settings, Timing
from asyncppo_operator.views import PodView, SetView, set_view

Object = dict[str, Any]
NEWER = Settings(timing=Timing(grace_seconds=99.0))
ROLES = [Role.LEARNER, Role.ROLLOUT, Role.OLD_LOGIT]


class Earlier:
    """A running job of an earlier operator, as a new one finds it."""

    def __init__(self, version: str) -> None:
        self.raw, objects = recorded(version)
        self.objects = {(o["kind"], o["metadata"]["name"]): o for o in objects}
        self.text: str = self.objects[("ConfigMap", "guess-job")]["data"][names.JOB_KEY]

    def accepted(self, **learner: Any) -> AsyncPPOJob:
        raw = {**self.raw, "spec": {**self.raw["spec"], "learner": learner}}
        made = accept(raw, parse_manifest(json.loads(self.text), "stored"), NEWER)
        assert made.accepted
        assert made.job is not None
        return made.job

    def template(self, role: Role) -> Object:
        found: Object = self.objects[("StatefulSet", names.workload("guess", role))]["spec"]["template"]
        return found

    def sets(self) -> dict[Role, SetView]:
        return {role: set_view(self.objects[("StatefulSet", names.workload("guess", role))]) for role in ROLES}

    def pods(self) -> list[PodView]:
        return [pod(role, template_hash=self.sets()[role].template_hash) for role in ROLES]

    def held(self) -> dict[Role, Held]:
        return {role: Held(self.template(role)["spec"], "") for role in ROLES}


@pytest.fixture(params=VERSIONS)
def earlier(request: pytest.FixtureRequest) -> Earlier:
    return Earlier(request.param)


def test_an_unchanged_job_keeps_every_pod_template_and_restarts_no_pod(earlier: Earlier) -> None:
    job = earlier.accepted()
    assert to_hold(job, earlier.sets(), earlier.pods(), [], NEWER) == ROLES
    observed = Observed(earlier.pods(), "t", manifest=earlier.text, held=earlier.held(), single_token=True)
    made = plan(job, Target.RUN, observed, NEWER)
    assert made.restart == []
    sets = {m["metadata"]["name"]: m["spec"]["template"] for m in made.apply if m["kind"] == "StatefulSet"}
    assert sets == {names.workload("guess", role): earlier.template(role) for role in ROLES}


def test_its_manifest_is_not_written_anew(earlier: Earlier) -> None:
    assert manifest_text(earlier.accepted(), earlier.text) == earlier.text


def test_an_edit_writes_what_it_changed_and_no_field_that_the_jobs_programs_do_not_know(earlier: Earlier) -> None:
    edited = json.loads(manifest_text(earlier.accepted(threads=3), earlier.text))
    told = json.loads(earlier.text)
    assert edited["spec"]["learner"].pop("threads") == 3
    del told["spec"]["learner"]["threads"]
    assert edited == told
    adopting = json.loads(manifest_text(earlier.accepted(adoptStorage=True), earlier.text))
    assert adopting["spec"]["learner"]["adoptStorage"] is True, "what is asked for is told"


def test_an_edit_that_replaces_pods_replaces_all_for_they_talk_to_each_other(earlier: Earlier) -> None:
    job = earlier.accepted(resources={"requests": {"cpu": "3"}})
    assert to_hold(job, earlier.sets(), earlier.pods(), ROLES, NEWER) == []
    made = plan(job, Target.RUN, Observed(earlier.pods(), "t"), NEWER)
    assert made.restart == sorted(names.pod("guess", role, 0) for role in ROLES)


@pytest.mark.parametrize("there", [False, True], ids=["none", "going"])
def test_a_job_without_pods_takes_the_new_rendering(earlier: Earlier, there: bool) -> None:
    going = [replace(each, deleting=True) for each in earlier.pods()] if there else []
    assert to_hold(earlier.accepted(), earlier.sets(), going, ROLES, NEWER) == []


def test_a_set_that_was_deleted_comes_back_as_it_was_if_that_is_known(earlier: Earlier) -> None:
    left = {role: view for role, view in earlier.sets().items() if role is not Role.ROLLOUT}
    assert to_hold(earlier.accepted(), left, earlier.pods(), [Role.ROLLOUT], NEWER) == ROLES
    assert to_hold(earlier.accepted(), left, earlier.pods(), [], NEWER) == [], "else all together"


def test_an_operators_own_rendering_is_not_held(earlier: Earlier) -> None:
    job = earlier.accepted()
    sets = {role: set_view({"spec": {"template": pod_template(job, role, SETTINGS)}, "metadata": {}}) for role in ROLES}
    pods = [pod(role, template_hash=s.template_hash, rendering=s.rendering) for role, s in sets.items()]
    assert to_hold(job, sets, pods, [], SETTINGS) == []
    assert plan(job, Target.RUN, Observed(pods, "t"), SETTINGS).restart == []
    assert to_hold(job, sets, pods, [], NEWER) == ROLES, "but by one with other settings it is"


def managed(fields: Object, manager: str = names.FIELD_MANAGER, operation: str = "Apply") -> Object:
    return {"manager": manager, "operation": operation, "fieldsV1": fields}


LIVE: Object = {
    "spec": {
        "containers": [
            {"name": "learner", "image": "a", "args": ["x", "y"], "imagePullPolicy": "Always",
             "ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 1}]},
            {"name": "theirs", "image": "b"},
        ],
        "finalizers": ["ours", "theirs"],
        "nodeSelector": {"a": "b"},
        "dnsPolicy": "ClusterFirst",
    }
}  # fmt: skip
OURS: Object = {
    "f:spec": {
        "f:containers": {
            'k:{"name":"learner"}': {
                ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:protocol": {}}},
            }
        },
        "f:finalizers": {'v:"ours"': {}},
        "f:nodeSelector": {},
    }
}  # fmt: skip


def test_what_was_applied_is_read_back_from_the_servers_record() -> None:
    theirs = managed({"f:spec": {"f:dnsPolicy": {}}}, manager="kubectl")
    updated = managed({"f:spec": {"f:dnsPolicy": {}}}, operation="Update")
    live = {**LIVE, "metadata": {"managedFields": [theirs, updated, managed(OURS)]}}
    assert applied(live, "spec") == {
        "containers": [
            {"name": "learner", "image": "a", "args": ["x", "y"], "ports": [{"containerPort": 80, "protocol": "TCP"}]}
        ],
        "finalizers": ["ours"],
        "nodeSelector": {"a": "b"},
    }
    assert applied({**LIVE, "metadata": {"managedFields": [theirs]}}, "spec") == {}
    assert applied(LIVE, "spec") == {}
