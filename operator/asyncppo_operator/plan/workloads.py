"""StatefulSets and what surrounds them: Services, disruption budgets, the network policy.

Owns these objects. Pods have stable names (a rollout's is its member name) and are replaced only when the operator says so
(OnDelete): all outdated pods of a role go at once, no spare device is needed, and a broken image does not block its own repair.
"""

from asyncppo.api.job import AsyncPPOJob
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan.pods import Object
from asyncppo_operator.settings import Settings


def stateful_set(job: AsyncPPOJob, role: Role, replicas: int, template: Object) -> Object:
    """The role's pods."""
    name = job.metadata.name
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": names.workload(name, role), "labels": names.labels(name, role)},
        "spec": {
            "replicas": replicas,
            "serviceName": names.workload(name, role),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": names.selector(name, role)},
            "template": template,
        },
    }


def service(job: AsyncPPOJob, role: Role) -> Object:
    """The role's Service. Not-ready pods are published: a learner that is not ready must still be asked why.

    The learner's has an address of its own, so that its name leads to a new pod at once; the others are headless.
    """
    name = job.metadata.name
    spec: Object = {
        "selector": names.selector(name, role),
        "publishNotReadyAddresses": True,
        "ports": [{"name": names.PORT_NAME, "port": names.PORT, "targetPort": names.PORT_NAME, "protocol": "TCP"}],
    }
    if role is not Role.LEARNER:
        spec["clusterIP"] = "None"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": names.workload(name, role), "labels": names.labels(name, role)},
        "spec": spec,
    }


def disruption_budget(job: AsyncPPOJob, role: Role, api_version: str) -> Object:
    """Voluntary disruptions: rollouts one at a time; the learner never, for its restart costs everybody (suspend the job instead)."""
    name = job.metadata.name
    return {
        "apiVersion": api_version,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": names.workload(name, role), "labels": names.labels(name, role)},
        "spec": {
            "maxUnavailable": 0 if role is Role.LEARNER else 1,
            "selector": {"matchLabels": names.selector(name, role)},
        },
    }


def network_policy(job: AsyncPPOJob, settings: Settings) -> Object:
    """Who may reach the pods: each other and the operator, for control; the scrapers, for metrics."""
    name = job.metadata.name
    own = settings.network_policy
    control: list[Object] = [
        {"podSelector": {"matchLabels": {names.LABEL_JOB: name}}},
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": own.operator_namespace}},
            "podSelector": {"matchLabels": dict(own.operator_labels)},
        },
    ]
    ingress: list[Object] = [{"from": control, "ports": [{"protocol": "TCP", "port": names.PORT}]}]
    if own.scrape_from:
        # a rule whose list of peers is empty lets everybody in
        ingress.append({"from": own.scrape_from, "ports": [{"protocol": "TCP", "port": names.METRICS_PORT}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": names.policy(name), "labels": names.labels(name)},
        "spec": {
            "podSelector": {"matchLabels": {names.LABEL_JOB: name}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }
