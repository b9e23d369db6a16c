"""What the chart renders and what the operator makes for jobs, judged by others: Kubernetes' own schemas of many versions, and checkov.

Needs helm and checkov (`make setup-checkov`), no API server.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.cluster.kubernetes import ROOT
from tests.cluster.test_chart import rendered
from tests.unit.operator.builders import raw_job

from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Observed, plan
from asyncppo_operator.settings import Settings

VERSIONS = [f"1.{minor}" for minor in range(29, 37)]
OWN_GROUPS = ("asyncppo.io", "monitoring.coreos.com")
Object = dict[str, Any]

RESOURCES = {"requests": {"cpu": 1, "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
ROLES = {role: {"resources": RESOURCES} for role in ("learner", "rollout")}
JOBS: dict[str, Object] = {
    "plain": {},
    "sized": ROLES,
    "gpu": {
        "learner": {"resources": {"limits": {"memory": "64Gi"}}, "storageClassName": "fast"},
        "rollout": {"resources": {"limits": {"nvidia.com/gpu": 1}}, "template": {"spec": {"nodeSelector": {"a": "b"}}}},
    },
}

# checkov's findings that stay, each with its reason. (check, kind of the object, beginning of its name)
EXCEPTIONS: dict[tuple[str, str, str], str] = {
    (
        "CKV_K8S_11",
        "Deployment",
        "test-asyncppo",
    ): "a CPU limit would only slow the coordinator in the middle of a sync",
    ("CKV_K8S_38", "Deployment", "test-asyncppo"): "the operator talks to the API server; nothing else here may",
    ("CKV_K8S_15", "Deployment", "test-asyncppo"): "tags are versions, never moved; Always would need the registry",
    ("CKV_K8S_43", "Deployment", "test-asyncppo"): "a digest is known when an image is pushed; image.tag takes one",
    ("CKV_K8S_8", "Pod", "test-asyncppo"): "the pod of `helm test` runs once, for seconds",
    ("CKV_K8S_9", "Pod", "test-asyncppo"): "the pod of `helm test` runs once, for seconds",
    ("CKV_K8S_11", "Pod", "test-asyncppo"): "the pod of `helm test` runs once, for seconds",
    ("CKV_K8S_15", "Pod", "test-asyncppo"): "the operator's own image, which is there",
    ("CKV_K8S_43", "Pod", "test-asyncppo"): "the operator's own image",
    ("CKV2_K8S_6", "Pod", "test-asyncppo"): "the pod of `helm test` listens on no port",
    ("CKV_K8S_11", "StatefulSet", "guess"): "training takes what is free; the user may set a limit",
    ("CKV_K8S_15", "StatefulSet", "guess"): "tags are versions, never moved; jobs.images.pullPolicy changes it",
    ("CKV_K8S_43", "StatefulSet", "guess"): "the user's image may be given by digest",
}


def children(**spec: Any) -> list[Object]:
    """What the operator makes for a job, and the pods that its StatefulSets stand for."""
    raw = raw_job(**spec)
    accepted = accept(raw, None, Settings())
    assert accepted.job is not None, accepted.message
    made = plan(accepted.job, Target.RUN, Observed(token="secret"), Settings())
    found = [*made.once, *made.apply]
    for workload in [o for o in found if o["kind"] == "StatefulSet"]:
        template = workload["spec"]["template"]
        metadata = {**template["metadata"], "name": f"{workload['metadata']['name']}-0", "namespace": "lab"}
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    return [json.loads(json.dumps(o)) for o in found]


def known(objects: list[Object]) -> Iterator[Object]:
    """Those whose schema Kubernetes itself has."""
    for found in objects:
        if not found["apiVersion"].startswith(OWN_GROUPS) and found["kind"] != "CustomResourceDefinition":
            yield found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", JOBS)
def test_what_jobs_get_fits_the_schemas(name: str, version: str) -> None:
    objects = list(known(children(**JOBS[name])))
    assert {o["kind"] for o in objects} >= {"StatefulSet", "Pod", "Service", "Secret", "NetworkPolicy"}
    for made in objects:
        kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_chart_fits_the_schemas(version: str) -> None:
    for values in ({}, {"replicas": 2, "jobs.namespaces": ["lab"]}):
        for made in known(rendered(values, kube=f"{version}.0", monitoring=True)):
            kubernetes_validate.validate(made, version, strict=True)


def test_a_wrong_object_does_not_fit() -> None:
    wrong = next(o for o in children() if o["kind"] == "StatefulSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePolPolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_checkov_finds_the_listed_exceptions_and_no_more(tmp_path: Path) -> None:
    objects = [o for o in rendered({"replicas": 2}) if o["kind"] != "CustomResourceDefinition"]
    objects += [o for o in children(**ROLES) if o["kind"] != "Pod"]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    program = os.environ.get("CHECKOV") or shutil.which("checkov") or str(ROOT / ".venv-checkov" / "bin" / "checkov")
    assert shutil.which(program), "this test needs checkov: make setup-checkov"
    options = ["--framework", "kubernetes", "--skip-download", "--quiet", "--output", "json"]
    result = subprocess.run([program, "-d", str(tmp_path), *options], capture_output=True, text=True, check=False)
    answer = json.loads(result.stdout)
    assert answer["summary"]["passed"] > 200, answer["summary"]
    failed = set()
    for found in answer["results"]["failed_checks"]:
        kind, _, name = found["resource"].split(".")
        failed.add((found["check_id"], kind, name))
    expected = {(check, kind, name): stem for check, kind, name in failed for stem in (_listed(check, kind, name),)}
    assert [finding for finding, stem in expected.items() if not stem] == [], "not listed, with a reason, in EXCEPTIONS"
    assert {stem for stem in expected.values() if stem} == set(EXCEPTIONS), "an exception that nothing needs any more"


def _listed(check: str, kind: str, name: str) -> tuple[str, str, str] | None:
    return next((e for e in EXCEPTIONS if e[:2] == (check, kind) and name.startswith(e[2])), None)
