"""Objects of a job: which, whose, in which order, how secured; and that planning again plans the same."""

import json
from typing import Any

import pytest
from tests.unit.operator.builders import SETTINGS, UID, pod, raw_job

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import parse_manifest
from asyncppo.errors import UserError
from asyncppo.wire import tokens
from asyncppo_operator import names
from asyncppo_operator.kinds import resource_of
from asyncppo_operator.names import Role
from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Facts, Observed, Plan, Ref, applied_hash, plan
from asyncppo_operator.plan.pods import pod_template
from asyncppo_operator.settings import Images, NetworkPolicySettings, Settings
from asyncppo_runtime.old_logit.__main__ import program_parser

OBSERVED = Observed(token="secret-token")


def accepted(settings: Settings = SETTINGS, **spec: Any) -> AsyncPPOJob:
    job = accept(raw_job(**spec), None, settings).job
    assert job is not None
    return job


def planned(target: Target = Target.RUN, observed: Observed = OBSERVED, **spec: Any) -> Plan:
    return plan(accepted(**spec), target, observed, SETTINGS)


def of_kind(made: Plan, kind: str) -> dict[str, dict[str, Any]]:
    return {m["metadata"]["name"]: m for m in (*made.apply, *made.once) if m["kind"] == kind}


def pod_spec(made: Plan, role: str) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind(made, "StatefulSet")[f"guess-{role}"]["spec"]["template"]["spec"]
    return spec


def test_a_running_job_has_these_objects() -> None:
    made = planned()
    found = sorted((m["kind"], m["metadata"]["name"]) for m in (*made.apply, *made.once))
    assert found == [
        ("ConfigMap", "guess-job"),
        ("NetworkPolicy", "guess-pods"),
        ("PersistentVolumeClaim", "guess-learner-data"),
        ("PodDisruptionBudget", "guess-learner"),
        ("PodDisruptionBudget", "guess-rollout"),
        ("Secret", "guess-token"),
        ("Service", "guess-learner"),
        ("Service", "guess-rollout"),
        ("ServiceAccount", "guess-pods"),
        ("StatefulSet", "guess-learner"),
        ("StatefulSet", "guess-rollout"),
    ]


DEDICATED = {"oldLogits": {"strategy": "Dedicated"}, "oldLogit": {"replicas": 2}}


def test_old_logit_workers_have_pods_where_the_strategy_has_them() -> None:
    made = planned(**DEDICATED)
    workers = of_kind(made, "StatefulSet")["guess-old-logit"]
    assert workers["spec"]["replicas"] == 2
    assert set(of_kind(made, "Service")) == {"guess-learner", "guess-rollout", "guess-old-logit"}
    (container,) = pod_spec(made, "old-logit")["containers"]
    assert container["command"] == ["python", "-P", "-m", "asyncppo_runtime.old_logit"]
    assert container["image"] == SETTINGS.images.old_logit
    told = program_parser().parse_args(container["args"])
    assert told.learner == names.learner_url("guess")
    assert str(told.job) == names.JOB_FILE
    assert "guess-old-logit" not in of_kind(planned(), "StatefulSet")


def test_what_pods_need_is_made_before_them() -> None:
    kinds = [m["kind"] for m in planned().apply]
    assert max(kinds.index(k) for k in ("ServiceAccount", "ConfigMap", "PersistentVolumeClaim")) < kinds.index(
        "StatefulSet"
    )


def test_everything_is_owned_labelled_and_in_the_table_of_kinds() -> None:
    for manifest in (*planned().apply, *planned().once):
        resource_of(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        assert metadata["namespace"] == "lab"
        assert metadata["ownerReferences"][0]["uid"] == UID
        assert metadata["labels"][names.LABEL_JOB] == "guess"
        assert metadata["labels"][names.LABEL_MANAGED] == names.FIELD_MANAGER


def test_a_retained_volume_is_nobodys() -> None:
    claim = of_kind(planned(learner={"retainStorage": True, "storage": "3Gi", "storageClassName": "fast"}),
                    "PersistentVolumeClaim")["guess-learner-data"]  # fmt: skip
    assert "ownerReferences" not in claim["metadata"]
    assert claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "3Gi"}},
        "storageClassName": "fast",
    }


def test_the_volume_is_made_once_and_adopted_only_when_that_is_asked_for() -> None:
    claim = Ref("v1", "PersistentVolumeClaim", "guess-learner-data")
    assert (planned().adopt, planned().never_again) == ((), ())
    assert planned(learner={"adoptStorage": True}).adopt == [claim]
    assert planned(observed=Observed(token="t", had_storage=True)).never_again == [claim]


def test_planning_again_plans_the_same() -> None:
    hashes = [[applied_hash(m) for m in planned().apply] for _ in range(2)]
    assert hashes[0] == hashes[1]


def test_the_programs_get_the_accepted_manifest() -> None:
    data = of_kind(planned(), "ConfigMap")["guess-job"]["data"]
    job = parse_manifest(json.loads(data["job.json"]), "job.json")
    assert job.metadata.uid == UID
    assert job.spec.learner.image == SETTINGS.images.learner


def test_the_token_is_in_the_secret_alone() -> None:
    made = planned()
    keys = {role: tokens.role_key("secret-token", tokens.Role(role)) for role in ("rollout", "old-logit")}
    assert of_kind(made, "Secret")["guess-token"]["stringData"] == {"control": "secret-token", **keys}
    assert not [value for value in ("secret-token", *keys.values()) if value in json.dumps(list(made.apply))]


def secret_entries(spec: dict[str, Any], mounts: list[dict[str, Any]]) -> set[str]:
    """The entries of the job's Secret that a container with these mounts can read."""
    names_of = {mount["name"] for mount in mounts}
    secrets = [v["secret"] for v in spec["volumes"] if v["name"] in names_of and "secret" in v]
    assert all(secret["secretName"] == "guess-token" and secret["defaultMode"] == 0o440 for secret in secrets)
    return {item["key"] for secret in secrets for item in secret["items"]}


@pytest.mark.parametrize("role", ["rollout", "old-logit"])
def test_only_an_init_container_sees_a_roles_key_and_it_makes_the_workers_own_token(role: str) -> None:
    spec = pod_spec(planned(**DEDICATED), role)
    (worker,), (maker,) = spec["containers"], spec["initContainers"]
    assert secret_entries(spec, maker["volumeMounts"]) == {role}
    assert secret_entries(spec, worker["volumeMounts"]) == set()
    token = {"name": "token", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    assert token in spec["volumes"]
    assert {"name": "token", "mountPath": "/etc/asyncppo/token", "readOnly": True} in worker["volumeMounts"]
    assert worker["args"][worker["args"].index("--token-file") + 1] == "/etc/asyncppo/token/token"
    assert maker["image"] == worker["image"]
    assert maker["securityContext"] == worker["securityContext"]
    assert {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in maker["env"]
    assert maker["command"] == ["python", "-P", "-m", "asyncppo.wire.tokens"]
    arguments = dict(zip(maker["args"][::2], maker["args"][1::2], strict=True))
    assert arguments == {
        "--key-file": "/etc/asyncppo/role-key/key",
        "--role": role,
        "--name": "$(POD_NAME)",
        "--output": "/etc/asyncppo/token/token",
    }


def test_an_init_container_passes_the_quotas_that_its_worker_passes() -> None:
    resources = {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"cpu": 2, "memory": "2Gi"}}
    spec = pod_spec(planned(rollout={"resources": resources}), "rollout")
    assert spec["initContainers"][0]["resources"] == spec["containers"][0]["resources"]
    assert spec["initContainers"][0]["resources"]["limits"]["cpu"] == "2"


def test_the_learner_sees_control_and_derives_the_rest() -> None:
    spec = pod_spec(planned(**DEDICATED), "learner")
    assert "initContainers" not in spec
    assert secret_entries(spec, spec["containers"][0]["volumeMounts"]) == {"control"}


def test_a_job_whose_secret_holds_one_token_for_all_stays_with_it() -> None:
    """Its pods hold that token, and its images, pinned when it was made, know no other."""
    made = planned(observed=Observed(token="secret-token", single_token=True), **DEDICATED)
    assert of_kind(made, "Secret")["guess-token"]["stringData"] == {"token": "secret-token"}
    for role in ("learner", "rollout", "old-logit"):
        spec = pod_spec(made, role)
        assert "initContainers" not in spec
        assert {"name": "token", "secret": {"secretName": "guess-token", "defaultMode": 0o440}} in spec["volumes"]


@pytest.mark.parametrize("role", ["learner", "rollout"])
def test_pods_are_restricted_and_have_no_rights(role: str) -> None:
    spec = pod_spec(planned(), role)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    container = spec["containers"][0]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert {"/dev/shm", "/tmp", names.DATA_DIRECTORY} <= mounts
    mounted = {m["name"] for c in (container, *spec.get("initContainers", [])) for m in c["volumeMounts"]}
    assert mounted == {v["name"] for v in spec["volumes"]}
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_programs_are_started_with_what_they_ask_for() -> None:
    made = planned()
    learner, rollout = pod_spec(made, "learner")["containers"][0], pod_spec(made, "rollout")["containers"][0]
    assert learner["command"] == ["python", "-P", "-m", "asyncppo_runtime.learner"]
    assert learner["args"][:2] == ["--job", names.JOB_FILE]
    arguments = dict(zip(rollout["args"][::2], rollout["args"][1::2], strict=True))
    assert arguments["--learner"] == "http://guess-learner:8080"
    assert arguments["--advertise"] == "http://$(POD_IP):8080"
    assert arguments["--name"] == "$(POD_NAME)"
    grace = pod_spec(made, "rollout")["terminationGracePeriodSeconds"]
    assert float(arguments["--grace-seconds"]) < grace


def test_resources_reach_the_container_and_gpus_get_more_shared_memory() -> None:
    made = planned(rollout={"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "8Gi"}}})
    spec = pod_spec(made, "rollout")
    assert spec["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1", "memory": "8Gi"}}
    shm = next(v for v in spec["volumes"] if v["name"] == "shm")["emptyDir"]
    assert shm == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert next(v for v in pod_spec(made, "learner")["volumes"] if v["name"] == "shm")["emptyDir"]["sizeLimit"] == "1Gi"


def test_an_overlay_cannot_take_pods_out_of_their_set() -> None:
    overlay = {
        "metadata": {"labels": {names.LABEL_ROLE: "cook", "team": "a"}},
        "spec": {"nodeSelector": {"gpu": "yes"}},
    }
    template = of_kind(planned(rollout={"template": overlay}), "StatefulSet")["guess-rollout"]["spec"]["template"]
    assert template["metadata"]["labels"][names.LABEL_ROLE] == "rollout"
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["spec"]["nodeSelector"] == {"gpu": "yes"}


def test_an_overlay_that_cannot_be_merged_is_the_users_error() -> None:
    with pytest.raises(UserError, match="need 'name'"):
        planned(rollout={"template": {"spec": {"containers": [{"image": "x"}]}}})


def as_made(job: AsyncPPOJob, role: Role) -> dict[str, str]:
    """What a pod says that was made by this operator of this job."""
    annotations = pod_template(job, role, SETTINGS)["metadata"]["annotations"]
    return {
        "template_hash": annotations[names.ANNOTATION_TEMPLATE],
        "rendering": annotations[names.ANNOTATION_RENDERING],
    }


def test_changed_resources_restart_a_roles_pods_and_no_others() -> None:
    job = accepted()
    pods = [
        pod(Role.LEARNER, **as_made(job, Role.LEARNER)),
        pod(Role.ROLLOUT, 0, **as_made(job, Role.ROLLOUT)),
        pod(Role.ROLLOUT, 1, **as_made(job, Role.ROLLOUT), deleting=True),
    ]
    assert planned(observed=Observed(pods, "secret-token")).restart == []
    changed = planned(observed=Observed(pods, "secret-token"), rollout={"resources": {"limits": {"cpu": 2}}})
    assert changed.restart == ["guess-rollout-0"]


def test_a_new_operator_restarts_no_pod() -> None:
    job = accepted()
    pods = [pod(Role.ROLLOUT, 0, **as_made(job, Role.ROLLOUT))]
    newer = Settings(images=Images(rollout="rollout:9"))
    kept = accept(raw_job(), job, newer).job
    assert kept is not None
    assert plan(kept, Target.RUN, Observed(pods, "secret-token"), newer).restart == []


@pytest.mark.parametrize(
    ("target", "learner", "rollout"), [(Target.RUN, 1, 3), (Target.DRAIN, 1, 0), (Target.IDLE, 0, 0)]
)
def test_replicas_follow_the_target(target: Target, learner: int, rollout: int) -> None:
    sets = of_kind(planned(target, rollout={"replicas": 3}), "StatefulSet")
    assert (sets["guess-learner"]["spec"]["replicas"], sets["guess-rollout"]["spec"]["replicas"]) == (learner, rollout)


def test_a_finished_job_loses_what_runs_and_keeps_what_it_made() -> None:
    made = planned(Target.GONE)
    assert made.apply == ()
    assert {ref.kind for ref in made.delete} == {"StatefulSet", "PodDisruptionBudget", "Service", "NetworkPolicy"}
    assert planned(Target.DELETED) == Plan(delete_job=True)


def test_an_old_api_server_gets_the_old_budget() -> None:
    made = planned(observed=Observed(token="t", facts=Facts("policy/v1beta1")))
    assert {b["apiVersion"] for b in of_kind(made, "PodDisruptionBudget").values()} == {"policy/v1beta1"}


def test_the_network_policy_can_be_left_out() -> None:
    off = Settings(network_policy=NetworkPolicySettings(enabled=False))
    assert "NetworkPolicy" not in {m["kind"] for m in plan(accepted(), Target.RUN, OBSERVED, off).apply}


@pytest.mark.parametrize("role", ["learner", "rollout", "old-logit"])
def test_every_role_is_scraped_on_a_port_of_its_own_and_controlled_on_another(role: str) -> None:
    container = pod_spec(planned(**DEDICATED), role)["containers"][0]
    assert {p["name"]: p["containerPort"] for p in container["ports"]} == {"http": 8080, "metrics": 8081}
    assert container["args"][container["args"].index("--listen") + 1] == "0.0.0.0:8080"
    assert container["args"][container["args"].index("--metrics-listen") + 1] == "0.0.0.0:8081"
    assert {container[probe]["httpGet"]["port"] for probe in container if probe.endswith("Probe")} == {"http"}
    # a job of before: its pinned image knows one port
    old = planned(observed=Observed(token="t", single_token=True), **DEDICATED)
    container = pod_spec(old, role)["containers"][0]
    assert [p["name"] for p in container["ports"]] == ["http"]
    assert "--metrics-listen" not in container["args"]


def test_scrapers_reach_the_metrics_port_alone() -> None:
    scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    settings = Settings(network_policy=NetworkPolicySettings(scrape_from=[scraper]))
    made = plan(accepted(settings), Target.RUN, OBSERVED, settings)
    rules = of_kind(made, "NetworkPolicy")["guess-pods"]["spec"]["ingress"]
    assert [rule["ports"][0]["port"] for rule in rules if scraper in rule["from"]] == [8081]
    assert [scraper] == [peer for rule in rules for peer in rule["from"] if rule["ports"][0]["port"] == 8081]


def test_pull_secrets_of_the_settings_reach_the_pods() -> None:
    settings = Settings(images=Images(pull_secrets=["hub"]))
    made = plan(accepted(settings), Target.RUN, OBSERVED, settings)
    assert pod_spec(made, "learner")["imagePullSecrets"] == [{"name": "hub"}]
