"""Who reaches which port of a job's pods, by its NetworkPolicy as rendered: a table of from, to, port. And the evaluator itself."""

from typing import Any

import pytest
from tests.unit.operator.builders import UID
from tests.unit.operator.network import Pod, allowed, matches
from tests.unit.operator.test_planner import accepted

from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Observed, plan
from asyncppo_operator.settings import NetworkPolicySettings, Settings

PROMETHEUS: list[dict[str, Any]] = [
    {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }
]
CONTROL, METRICS, OTHER = names.PORT, names.METRICS_PORT, 22


def pod(namespace: str, **labels: str) -> Pod:
    return Pod(namespace, labels, {"kubernetes.io/metadata.name": namespace})


def of_job(job: str, role: Role, namespace: str = "lab") -> Pod:
    return pod(namespace, **names.labels(job, role), **{names.LABEL_UID: UID})


LEARNER, ROLLOUT = of_job("guess", Role.LEARNER), of_job("guess", Role.ROLLOUT)
OPERATOR = pod("asyncppo-system", **{"app.kubernetes.io/name": "asyncppo-operator"})
SCRAPER = pod("monitoring", **{"app.kubernetes.io/name": "prometheus"})
# None of these may reach a job, however it is set.
STRANGERS = {
    "another pod of the namespace": pod("lab", app="web"),
    "another job of the namespace": of_job("other", Role.ROLLOUT),
    "a job of the same name elsewhere": of_job("guess", Role.ROLLOUT, "prod"),
    "a pod beside the operator": pod("asyncppo-system", app="web"),
    "a pod elsewhere with the operator's label": pod("lab", **{"app.kubernetes.io/name": "asyncppo-operator"}),
    "a pod beside Prometheus": pod("monitoring", app="web"),
    "a pod elsewhere with Prometheus' label": pod("lab", **{"app.kubernetes.io/name": "prometheus"}),
    "something outside": Pod(ip="192.0.2.7"),
}


def policies(scrape_from: list[dict[str, Any]] | None = None, enabled: bool = True) -> list[dict[str, Any]]:
    own = NetworkPolicySettings(enabled=enabled, scrape_from=scrape_from or [])
    settings = Settings(network_policy=own)
    made = plan(accepted(settings), Target.RUN, Observed(token="t"), settings)
    return [found for found in made.apply if found["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("scrape_from", [[], PROMETHEUS], ids=["default", "scraped"])
@pytest.mark.parametrize("target", [LEARNER, ROLLOUT], ids=["learner", "rollout"])
@pytest.mark.parametrize(
    ("source", "port", "expected"),
    [
        (ROLLOUT, CONTROL, True),
        (LEARNER, CONTROL, True),
        (OPERATOR, CONTROL, True),
        (ROLLOUT, OTHER, False),
        (OPERATOR, OTHER, False),
    ],
)
def test_control_is_for_the_job_and_the_operator(
    source: Pod, port: int, expected: bool, target: Pod, scrape_from: list[dict[str, Any]]
) -> None:
    assert allowed(policies(scrape_from), source, target, port) is expected


@pytest.mark.parametrize("scrape_from", [[], PROMETHEUS], ids=["default", "scraped"])
@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("port", sorted({CONTROL, METRICS, OTHER}))
def test_strangers_reach_nothing(who: str, port: int, scrape_from: list[dict[str, Any]]) -> None:
    for target in (LEARNER, ROLLOUT):
        assert not allowed(policies(scrape_from), STRANGERS[who], target, port)


def test_nobody_scrapes_until_it_is_said_who() -> None:
    assert not allowed(policies(), SCRAPER, LEARNER, METRICS)
    assert allowed(policies(PROMETHEUS), SCRAPER, LEARNER, METRICS)


def test_who_scrapes_reaches_the_metrics_port_alone() -> None:
    for port in (CONTROL, OTHER):
        assert allowed(policies(PROMETHEUS), SCRAPER, LEARNER, port) is (port == METRICS)


def test_who_can_label_a_pod_of_the_namespace_is_let_in() -> None:
    """What docs/security.md says is not held off: the token is."""
    assert allowed(policies(), pod("lab", **{names.LABEL_JOB: "guess"}), LEARNER, CONTROL)


def test_without_a_policy_all_is_open() -> None:
    assert policies(enabled=False) == []
    assert all(allowed([], source, LEARNER, CONTROL) for source in STRANGERS.values())


TARGET = Pod("a", {"x": "1"}, ports={"web": 80})


def policy(ingress: Any, selector: Any = None, namespace: str = "a", kinds: Any = None) -> dict[str, Any]:
    spec = {"podSelector": selector or {}, "policyTypes": kinds or ["Ingress"], "ingress": ingress}
    return {"metadata": {"namespace": namespace}, "spec": spec}


@pytest.mark.parametrize(
    ("made", "source", "port", "expected"),
    [
        (policy([]), Pod("a"), 80, False),
        (policy(None), Pod("a"), 80, False),
        (policy([{}]), Pod("z"), 99, True),
        (policy([{"from": []}]), Pod("z"), 80, True),
        (policy([], namespace="b"), Pod("z"), 80, True),
        (policy([], {"matchLabels": {"x": "2"}}), Pod("z"), 80, True),
        (policy([], kinds=["Egress"]), Pod("z"), 80, True),
        (policy([{"from": [{"podSelector": {}}]}]), Pod("a"), 80, True),
        (policy([{"from": [{"podSelector": {}}]}]), Pod("b"), 80, False),
        (policy([{"from": [{"namespaceSelector": {}}]}]), Pod("b"), 80, True),
        (policy([{"from": [{"namespaceSelector": {}}]}]), Pod(), 80, False),
        (policy([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]), Pod(ip="10.2.0.1"), 80, True),
        (policy([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]), Pod(ip="10.1.0.1"), 80, False),
        (policy([{"ports": [{"port": "web"}]}]), Pod("z"), 80, True),
        (policy([{"ports": [{"port": "web"}]}]), Pod("z"), 81, False),
        (policy([{"ports": [{"port": 80, "endPort": 90}]}]), Pod("z"), 85, True),
        (policy([{"ports": [{"port": 80, "protocol": "UDP"}]}]), Pod("z"), 80, False),
    ],
)  # fmt: skip
def test_the_evaluator(made: dict[str, Any], source: Pod, port: int, expected: bool) -> None:
    assert allowed([made], source, TARGET, port) is expected


def test_policies_add_up() -> None:
    open_to_b = policy([{"from": [{"namespaceSelector": {}}], "ports": [{"port": 80}]}])
    assert allowed([policy([]), open_to_b], Pod("b"), TARGET, 80)


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ["1", "2"], {"x": "1"}, True),
        ("In", ["2"], {"x": "1"}, False),
        ("NotIn", ["2"], {}, True),
        ("NotIn", ["1"], {"x": "1"}, False),
        ("Exists", [], {"x": ""}, True),
        ("DoesNotExist", [], {"x": ""}, False),
    ],
)
def test_expressions_of_a_selector(operator: str, values: list[str], labels: dict[str, str], expected: bool) -> None:
    selector = {"matchExpressions": [{"key": "x", "operator": operator, "values": values}]}
    assert matches(selector, labels) is expected
