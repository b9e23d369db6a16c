"""Labels and annotations for others reach every object of a job, select nothing, and restart nothing."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from tests.unit.operator.builders import SETTINGS, pod, raw_job
from tests.unit.operator.test_planner import accepted

from asyncppo.api.manifest import parse_manifest
from asyncppo.api.problems import ManifestError
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Observed, Plan, plan
from asyncppo_operator.plan.pods import pod_template
from asyncppo_operator.settings import Settings
from asyncppo_operator.views import PodView

DEDICATED: dict[str, Any] = {"oldLogits": {"strategy": "Dedicated"}, "oldLogit": {"replicas": 1}}


def planned(own: dict[str, str] | None = None, settings: Settings = SETTINGS, **spec: Any) -> Plan:
    return plan(accepted(settings, **DEDICATED, **spec), Target.RUN, Observed(token="t", labels=own or {}), settings)


def objects(made: Plan) -> list[dict[str, Any]]:
    return [*made.apply, *made.once]


KINDS = {
    "ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "Service", "PodDisruptionBudget", "StatefulSet", "Secret",
}  # fmt: skip


def test_a_label_reaches_every_kind_of_object_and_the_pods() -> None:
    settings = Settings(labels={"cost": "lab"}, annotations={"owner": "lab@example.org"})
    made = planned({"team": "a"}, settings, labels={"tier": "b"}, annotations={"note": "x y"})
    assert {found["kind"] for found in objects(made)} == KINDS
    for found in objects(made):
        carriers = [found["metadata"]]
        carriers += [found["spec"]["template"]["metadata"]] if found["kind"] == "StatefulSet" else []
        for metadata in carriers:
            assert {"cost": "lab", "team": "a", "tier": "b"}.items() <= metadata["labels"].items(), found["kind"]
            assert metadata["annotations"]["owner"] == "lab@example.org"
            assert metadata["labels"][names.LABEL_MANAGED] == names.FIELD_MANAGER


def test_an_authors_annotations_stay_off_the_account() -> None:
    for found in objects(planned(annotations={"note": "x"})):
        assert ("note" in found["metadata"].get("annotations", {})) == (found["kind"] != "ServiceAccount")


def test_without_any_the_objects_are_as_they_were() -> None:
    for found in objects(planned()):
        assert "annotations" not in found["metadata"]
        assert set(found["metadata"]["labels"]) <= {
            "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component", names.LABEL_MANAGED,
            names.LABEL_JOB, names.LABEL_ROLE, names.LABEL_UID,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "inherited"),
    [
        ("team", True),
        ("example.org/team", True),
        ("kueue.x-k8s.io/queue-name", True),
        ("kubernetes.io/x", False),
        ("app.kubernetes.io/instance", False),
        ("app.kubernetes.io/part-of", False),
        ("applyset.kubernetes.io/part-of", False),
        ("argocd.argoproj.io/instance", False),
        ("mykubernetes.io/x", True),
        ("asyncppo.io/job", False),
    ],
)
def test_which_of_the_jobs_own_labels_are_inherited(name: str, inherited: bool) -> None:
    for found in objects(planned({name: "mine"})):
        assert (found["metadata"]["labels"].get(name) == "mine") is inherited, found["kind"]


def test_what_is_wanted_on_purpose_is_taken_and_wins() -> None:
    label = "argocd.argoproj.io/instance"
    settings = Settings(labels={"team": "chart"})
    for found in objects(planned({"team": "job"}, settings, labels={label: "x", "team": "spec"})):
        assert (found["metadata"]["labels"][label], found["metadata"]["labels"]["team"]) == ("x", "spec")
    for found in objects(planned({"team": "job"}, settings)):
        assert found["metadata"]["labels"]["team"] == "job"


def test_an_overlay_has_the_last_word_on_pods() -> None:
    made = planned(labels={"team": "a"}, rollout={"template": {"metadata": {"labels": {"team": "b"}}}})
    sets = {s["metadata"]["name"]: s for s in made.apply if s["kind"] == "StatefulSet"}
    assert sets["guess-rollout"]["spec"]["template"]["metadata"]["labels"]["team"] == "b"
    assert sets["guess-rollout"]["metadata"]["labels"]["team"] == "a"


def test_selectors_are_the_operators_own() -> None:
    def selectors(made: Plan) -> list[Any]:
        keys = ("selector", "podSelector", "serviceName", "volumeClaimTemplates")
        return [[found["spec"].get(key) for key in keys] for found in made.apply if "spec" in found]

    assert selectors(planned({"team": "a"}, labels={"tier": "b"})) == selectors(planned())


def test_a_label_restarts_no_pod() -> None:
    plain, labelled = accepted(), accepted(labels={"team": "a"}, annotations={"note": "x"})

    def as_made(role: Role) -> PodView:
        made = pod_template(plain, role, Settings())["metadata"]["annotations"]
        return pod(role, template_hash=made[names.ANNOTATION_TEMPLATE], rendering=made[names.ANNOTATION_RENDERING])

    pods = [as_made(role) for role in (Role.LEARNER, Role.ROLLOUT)]
    made = plan(labelled, Target.RUN, Observed(pods, "t", labels={"cost": "lab"}), Settings(labels={"x": "y"}))
    assert made.restart == []
    for found in made.apply:
        if found["kind"] == "StatefulSet":
            assert found["spec"]["updateStrategy"] == {"type": "OnDelete"}, "a new template alone replaces no pod"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("labels", {"team": "a b"}, "labels.team"),
        ("labels", {"team": "a" * 64}, "63"),
        ("labels", {"team": 7}, "labels.team"),
        ("labels", {"te am": "a"}, "Kubernetes label"),
        ("labels", {"asyncppo.io/job": "other"}, "operator's own"),
        ("labels", {f"l{n}": "" for n in range(33)}, "32"),
        ("annotations", {"note": "x" * 4097}, "4096"),
        ("annotations", {"no te": "x"}, "Kubernetes annotation"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_at_once(field: str, value: Any, words: str) -> None:
    raw = raw_job(**{field: value})
    raw["metadata"] = {"name": "guess"}
    with pytest.raises(ManifestError) as refused:
        parse_manifest(json.loads(json.dumps(raw)), "job.yaml")
    assert words in str(refused.value)


@pytest.mark.parametrize("found", [{"labels": {"a b": "x"}}, {"labels": {"a": "b c"}}, {"annotations": {"/x": ""}}])
def test_the_operators_settings_are_judged_alike(found: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**found)
