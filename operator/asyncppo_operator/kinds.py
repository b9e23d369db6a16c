"""The kinds of objects the operator reads and writes, and where the API server keeps them.

Owns the table. A kind that is not here is not touched, and the chart's RBAC rules are checked against it.
"""

from dataclasses import dataclass

from asyncppo.api.job import API_VERSION, KIND, PLURAL


@dataclass(frozen=True)
class Resource:
    """verbs: what the operator does with it in a job's namespace."""

    api_version: str
    kind: str
    plural: str
    verbs: tuple[str, ...]

    @property
    def group(self) -> str:
        """API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path; without a namespace, of all namespaces."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = [root]
        if namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


JOB = Resource(API_VERSION, KIND, PLURAL, ("get", "list", "watch", "delete"))
POD = Resource("v1", "Pod", "pods", ("get", "list", "watch", "delete"))
STATEFUL_SET = Resource("apps/v1", "StatefulSet", "statefulsets", ("get", "list", "watch", "create", "patch", "delete"))
# what a job owns is looked at before it is made (get) and watched, by its metadata alone, to be made again (list, watch)
_KEPT = ("get", "list", "watch", "create", "patch")
SERVICE = Resource("v1", "Service", "services", (*_KEPT, "delete"))
CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps", _KEPT)
SECRET = Resource("v1", "Secret", "secrets", ("get", "list", "watch", "create"))
ACCOUNT = Resource("v1", "ServiceAccount", "serviceaccounts", _KEPT)
CLAIM = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims", _KEPT)
NETWORK_POLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", (*_KEPT, "delete"))
BUDGET = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", (*_KEPT, "delete"))
BUDGET_BETA = Resource("policy/v1beta1", "PodDisruptionBudget", "poddisruptionbudgets", BUDGET.verbs)
EVENT = Resource("v1", "Event", "events", ("get", "list", "watch", "create", "patch"))
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases", ("get", "create", "update"))

IN_JOB_NAMESPACES = (
    JOB, POD, STATEFUL_SET, SERVICE, CONFIG_MAP, SECRET, ACCOUNT, CLAIM, NETWORK_POLICY, BUDGET, EVENT,
)  # fmt: skip
"""What the operator needs rights for wherever jobs are; for jobs also `patch` of the status."""

_BY_KIND = {(r.api_version, r.kind): r for r in (*IN_JOB_NAMESPACES, BUDGET_BETA, LEASE)}


def resource_of(api_version: str, kind: str) -> Resource:
    """KeyError for a kind that is not in the table."""
    return _BY_KIND[(api_version, kind)]
