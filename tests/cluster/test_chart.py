"""The chart as rendered by the real helm: complete, strict, minimal in rights, restricted, and in step with the code beside it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kubernetes import ROOT
from tests.unit.operator.network import Pod, allowed

from asyncppo_operator.kinds import LEASE, SECRET
from asyncppo_operator.rights import needed
from asyncppo_operator.settings import TAG, load

CHART = ROOT / "charts" / "asyncppo"
MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
Object = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The real helm: the one of the environment variable HELM, or on PATH."""
    program = os.environ.get("HELM") or shutil.which("helm")
    assert program, "these tests need helm: set HELM"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def rendered(
    values: Object | None = None, *, kube: str = "1.34.0", monitoring: bool = False, **more: str
) -> list[Object]:
    """The objects of `helm template`."""
    arguments = ["template", "test", str(CHART), "-n", "system", "--kube-version", kube]
    if monitoring:
        arguments += [f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in MONITORING]
    for key, value in (values or {}).items():
        arguments += ["--set-json", f"{key}={json.dumps(value)}"]
    result = helm(*arguments)
    assert result.returncode == 0, result.stderr
    return [o for o in yaml.safe_load_all(result.stdout) if o]


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    found = [o for o in objects if o["kind"] == kind and (not name or o["metadata"]["name"] == name)]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def rights(objects: list[Object], kind: str, name: str) -> set[tuple[str, str, str]]:
    """(group, resource, verb) that a role grants."""
    return {
        (group, resource, verb)
        for rule in one(objects, kind, name)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_chart_lints() -> None:
    result = helm("lint", "--strict", str(CHART))
    assert result.returncode == 0, result.stdout + result.stderr


def test_rights_are_what_the_operator_asks_for_and_no_more() -> None:
    objects = rendered()
    asked = {(r.group, f"{r.plural}/{sub}" if sub else r.plural, verb) for r, verb, sub in needed()}
    assert rights(objects, "ClusterRole", "test-asyncppo") == asked
    lease = {(LEASE.group, LEASE.plural, verb) for verb in LEASE.verbs}
    key = {(SECRET.group, SECRET.plural, verb) for verb in ("get", "create")}
    assert rights(objects, "Role", "test-asyncppo-lease") == lease | key
    rules = one(objects, "Role", "test-asyncppo-lease")["rules"]
    assert [r["resourceNames"] for r in rules if r["verbs"] == ["get"]] == [["test-asyncppo-install-key"]]


def test_watched_namespaces_need_no_cluster_wide_right() -> None:
    objects = rendered({"jobs.namespaces": ["lab", "prod"], "rbac.aggregate": False})
    assert not [o for o in objects if o["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    roles = [o for o in objects if o["kind"] == "Role" and o["metadata"]["name"] == "test-asyncppo"]
    assert sorted(o["metadata"]["namespace"] for o in roles) == ["lab", "prod"]
    config = yaml.safe_load(one(objects, "ConfigMap", "test-asyncppo")["data"]["operator.yaml"])
    assert config["namespaces"] == ["lab", "prod"]


def test_the_configuration_is_one_the_operator_reads(tmp_path: Path) -> None:
    objects = rendered({"timing": {"pollSeconds": 2}, "jobs.images.learner.tag": "7", "workers": 3})
    file = tmp_path / "operator.yaml"
    file.write_text(one(objects, "ConfigMap", "test-asyncppo")["data"]["operator.yaml"])
    settings = load(file)
    assert settings.timing.poll_seconds == 2
    assert settings.images.learner == "asyncppo/learner:7"
    assert settings.images.rollout == f"asyncppo/rollout:{TAG}"
    assert settings.images.rollout_vllm == f"asyncppo/rollout-vllm:{TAG}"
    assert (settings.namespace, settings.workers, settings.lease.name) == ("system", 3, "test-asyncppo")
    assert settings.install_key_secret == "test-asyncppo-install-key"
    pods = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert settings.network_policy.operator_labels.items() <= pods.items()


def test_a_changed_configuration_restarts_the_operator() -> None:
    def stamp(values: Object) -> str:
        template = one(rendered(values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["asyncppo.io/config"])

    assert stamp({}) == stamp({})
    assert stamp({}) != stamp({"workers": 3})


def test_the_crd_is_the_committed_one() -> None:
    made = one(rendered({"crds.keep": False}), "CustomResourceDefinition")
    assert made == yaml.safe_load((ROOT / "crds" / "asyncppojobs.asyncppo.io.yaml").read_text())
    kept = one(rendered(), "CustomResourceDefinition")
    assert kept["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert kept == made
    assert not [o for o in rendered({"crds.enabled": False}) if o["kind"] == "CustomResourceDefinition"]


def test_servers_before_rules_get_the_crd_without_them() -> None:
    def without_rules(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: without_rules(v) for k, v in node.items() if k != "x-kubernetes-validations"}
        return [without_rules(v) for v in node] if isinstance(node, list) else node

    new = one(rendered(kube="1.25.0"), "CustomResourceDefinition")
    old = one(rendered(kube="1.24.9"), "CustomResourceDefinition")
    assert "x-kubernetes-validations" in json.dumps(new)
    assert old == without_rules(new)


def test_monitoring_is_made_only_where_its_kinds_are() -> None:
    assert not [o for o in rendered() if o["kind"] in MONITORING]
    made = rendered(monitoring=True)
    assert {o["kind"] for o in made} >= set(MONITORING)
    off = {"metrics.serviceMonitor.enabled": False, "metrics.podMonitor.enabled": False, "metrics.rules.enabled": False}
    assert not [o for o in rendered(off, monitoring=True) if o["kind"] in MONITORING]


def test_alerts_link_to_sections_that_exist() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    sections = {
        line.removeprefix("## ").strip().lower().replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("## ")
    }
    values = {"metrics.rules.runbookUrl": "https://example.org/runbooks"}
    groups = one(rendered(values, monitoring=True), "PrometheusRule")["spec"]["groups"]
    for alert in (rule for group in groups for rule in group["rules"]):
        assert {"summary", "description", "runbook_url"} <= alert["annotations"].keys(), alert["alert"]
        url, _, section = alert["annotations"]["runbook_url"].partition("#")
        assert url == "https://example.org/runbooks"
        assert section in sections, f"docs/runbooks.md has no section {section}"


def test_dashboards_reach_grafanas_side_car() -> None:
    made = [o for o in rendered() if o["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
    assert {json.loads(text)["uid"] for o in made for text in o["data"].values()} == {
        "asyncppo-job",
        "asyncppo-operator",
    }
    assert not [o for o in rendered({"metrics.dashboards.enabled": False}) if "grafana_dashboard" in str(o["metadata"])]


def test_every_pod_is_restricted() -> None:
    for made in rendered():
        spec = made["spec"]["template"]["spec"] if made["kind"] == "Deployment" else made.get("spec", {})
        for container in spec.get("containers", []):
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_more_replicas_get_a_disruption_budget_of_the_right_version() -> None:
    assert not [o for o in rendered() if o["kind"] == "PodDisruptionBudget"]
    assert one(rendered({"replicas": 2}), "PodDisruptionBudget")["apiVersion"] == "policy/v1"
    assert one(rendered({"replicas": 2}, kube="1.20.2"), "PodDisruptionBudget")["apiVersion"] == "policy/v1beta1"


@pytest.mark.parametrize(
    "values",
    [
        {"bogus": 1},
        {"image.tga": "x"},
        {"replicas": "2"},
        {"timing": {"pollSeconds": 0}},
        {"jobs.namespaces": ["Not A Name"]},
        {"logLevel": "LOUD"},
        {"metrics.rules.labels": {"a": 1}},
        {"jobs.labels": {"a b": "x"}},
        {"jobs.labels": {"a": "b c"}},
        {"jobs.labels": {"asyncppo.io/job": "x"}},
        {"jobs.labels": {"app.kubernetes.io/name": "x"}},
        {"jobs.annotations": {"/": "x"}},
        {"networkPolicy.from": [{}]},
    ],
)
def test_wrong_values_are_refused(values: Object) -> None:
    arguments = [part for key, value in values.items() for part in ("--set-json", f"{key}={json.dumps(value)}")]
    result = helm("template", "test", str(CHART), *arguments)
    assert result.returncode != 0
    assert "schema" in result.stderr


Place = tuple[str | int, ...]


def string_values(node: Object, definitions: Object, path: Place = ()) -> Iterator[Place]:
    """Every value of the chart that is a string, an example of each map and list of strings included."""
    name = node.get("$ref", "").rpartition("/")[2]
    node = {**node, **definitions.get(name, {})}
    kinds = {name, *(part.get("$ref", "").rpartition("/")[2] for part in node.get("allOf", ()))}
    if kinds & {"text", "nonEmptyText"}:
        yield path
    for key, child in node.get("properties", {}).items():
        yield from string_values(child, definitions, (*path, key))
    if isinstance(node.get("additionalProperties"), dict):
        yield from string_values(node["additionalProperties"], definitions, (*path, "example"))
    if isinstance(node.get("items"), dict):
        yield from string_values(node["items"], definitions, (*path, 0))


def all_strings() -> list[Place]:
    schema = json.loads((CHART / "values.schema.json").read_text())
    return list(string_values(schema, schema["definitions"]))


def as_values(paths: list[Place], values: list[Any]) -> Object:
    """A values file with these values at these paths."""
    result: Object = {}
    for path, value in zip(paths, values, strict=True):
        *parents, last = path[:-1] if path[-1] == 0 else path
        node = result
        for key in parents:
            node = node.setdefault(str(key), {})
        node[str(last)] = [value] if path[-1] == 0 else value
    return result


@pytest.mark.parametrize("value", [20260101, 1.10, True, 1e30])
def test_a_string_that_yaml_makes_something_else_is_refused_with_what_to_do(value: Any, tmp_path: Path) -> None:
    paths = all_strings()
    assert {("image", "tag"), ("jobs", "images", "learner", "tag"), ("image", "pullSecrets", 0)} <= set(paths)
    assert len(paths) > 25
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(as_values(paths, [value] * len(paths))))
    result = helm("template", "test", str(CHART), "-f", str(file))
    assert result.returncode != 0
    for path in paths:
        where = "/" + "/".join(str(part) for part in path)
        assert f"at '{where}': value must be 'a string: " in result.stderr, where
    assert "--set-string" in result.stderr


@pytest.mark.parametrize("argument", ["image.tag=20260101", "jobs.images.learner.tag=3806521"])
def test_a_numeric_tag_on_the_command_line(argument: str) -> None:
    refused = helm("template", "test", str(CHART), "--set", argument)
    assert refused.returncode != 0
    assert "--set-string" in refused.stderr
    tag = argument.partition("=")[2]
    taken = helm("template", "test", str(CHART), "--set-string", argument)
    assert f':{tag}"' in taken.stdout
    assert "e+0" not in taken.stdout


def test_a_string_that_looks_like_a_number_stays_a_string(tmp_path: Path) -> None:
    paths = [path for path in all_strings() if path[-1] != "interval"]
    numbers = [str(700001 + index) for index, _ in enumerate(paths)]
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(as_values(paths, numbers)))
    apis = [f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in MONITORING]
    result = helm("template", "888888", str(CHART), "-n", "999999", "-f", str(file), *apis)
    assert result.returncode == 0, result.stderr
    objects = [found for found in yaml.safe_load_all(result.stdout) if found]
    config = one(objects, "ConfigMap", "888888-asyncppo")["data"]["operator.yaml"]
    numeric = [n for found in (*objects, yaml.safe_load(config)) for n in numbers_in(found) if n >= 700001]
    assert numeric == [], "these are strings that were not quoted"
    assert all(number in result.stdout for number in numbers)
    (tmp_path / "operator.yaml").write_text(config)
    assert load(tmp_path / "operator.yaml").namespace == "999999"


def numbers_in(node: Any) -> Iterator[int]:
    """The numbers of a document that YAML did not read as strings; the definition's own bounds aside."""
    if isinstance(node, dict):
        if node.get("kind") != "CustomResourceDefinition":
            for key, value in node.items():
                yield from numbers_in(key)
                yield from numbers_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from numbers_in(value)
    elif isinstance(node, int) and not isinstance(node, bool):
        yield node


def test_what_jobs_are_given_reaches_the_operator(tmp_path: Path) -> None:
    given = {
        "jobs.labels": {"example.org/team": "a"},
        "jobs.annotations": {"note": "x y"},
        "jobs.templates": {"confine": True, "secrets": ["hf"]},
        "jobs.networkPolicy.scrapeFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
    }
    file = tmp_path / "operator.yaml"
    file.write_text(one(rendered(given), "ConfigMap", "test-asyncppo")["data"]["operator.yaml"])
    settings = load(file)
    assert settings.labels == given["jobs.labels"]
    assert settings.annotations == given["jobs.annotations"]
    assert (settings.templates.confine, settings.templates.secrets) == (True, ["hf"])
    assert settings.network_policy.scrape_from == given["jobs.networkPolicy.scrapeFrom"]
    file.write_text(one(rendered(), "ConfigMap", "test-asyncppo")["data"]["operator.yaml"])
    assert load(file).network_policy.scrape_from == [], "nobody scrapes unless it is said who"
    assert not load(file).templates.confine


@pytest.mark.parametrize(
    ("peers", "namespace", "expected"),
    [
        ([], "system", True),
        ([], "monitoring", False),
        ([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}], "monitoring", True),
        ([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}], "lab", False),
    ],
)
def test_who_reaches_the_operator(peers: list[Object], namespace: str, expected: bool) -> None:
    objects = rendered({"networkPolicy.from": peers})
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    source = Pod(namespace, {}, {"kubernetes.io/metadata.name": namespace})
    policy = one(objects, "NetworkPolicy")
    assert allowed([policy], source, Pod("system", labels), 8080) is expected
    assert not allowed([policy], source, Pod("system", labels), 22)


def test_every_value_has_a_schema() -> None:
    """The other way round: a value nobody described would be refused even as its own default."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(defaults) | {"global"} == set(schema["properties"])


def test_alert_rules_do_what_they_say() -> None:
    program = shutil.which("promtool")
    assert program, "these tests need promtool (Debian: apt-get install prometheus)"
    file = Path(__file__).parent / "chart" / "rules.test.yaml"
    result = subprocess.run([program, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_tested() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    tests = (Path(__file__).parent / "chart" / "rules.test.yaml").read_text()
    for alert in (rule["alert"] for group in rules["groups"] for rule in group["rules"]):
        assert tests.count(f"alertname: {alert}") >= 2, f"{alert} is not tested both silent and firing"
