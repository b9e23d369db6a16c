"""NetworkPolicies as a cluster would enforce them: whether a connection to a pod is let in.

Owns the semantics of ingress in networking.k8s.io/v1. No cluster of these tests enforces policies; this judges the rendered ones.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """One end of a connection. namespace_labels: of its namespace. ports: its named ports. A node or something outside: no namespace."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ip: str = "10.0.0.1"
    ports: Mapping[str, int] = field(default_factory=dict)


def allowed(policies: Sequence[Object], source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether `target` accepts a connection from `source`: a pod that no policy selects accepts all."""
    chosen = [policy for policy in policies if _selects(policy, target)]
    rules = [rule for policy in chosen for rule in policy["spec"].get("ingress") or []]
    return not chosen or any(_admits(rule, source, target, port, protocol) for rule in rules)


def _selects(policy: Object, target: Pod) -> bool:
    spec = policy["spec"]
    kinds = spec.get("policyTypes") or ["Ingress"]
    same = policy["metadata"]["namespace"] == target.namespace
    return "Ingress" in kinds and same and matches(spec["podSelector"], target.labels)


def _admits(rule: Object, source: Pod, target: Pod, port: int, protocol: str) -> bool:
    peers, ports = rule.get("from") or [], rule.get("ports") or []
    # an empty list means all
    return (not peers or any(_is_peer(peer, source, target) for peer in peers)) and (
        not ports or any(_is_port(one, target, port, protocol) for one in ports)
    )


def _is_peer(peer: Object, source: Pod, target: Pod) -> bool:
    if not peer:
        raise ValueError("a peer without a selector is refused by the API server")
    if "ipBlock" in peer:
        address, block = ipaddress.ip_address(source.ip), peer["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(cut) for cut in block.get("except") or [])
    if not source.namespace:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], source.namespace_labels):
            return False
    elif source.namespace != target.namespace:
        return False
    return matches(peer.get("podSelector") or {}, source.labels)


def _is_port(wanted: Object, target: Pod, port: int, protocol: str) -> bool:
    if wanted.get("protocol", "TCP") != protocol:
        return False
    first = wanted.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return target.ports.get(first) == port
    return bool(first <= port <= wanted.get("endPort", first))


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """A label selector; an empty one matches all."""
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(one, labels) for one in selector.get("matchExpressions") or [])


def _meets(one: Object, labels: Mapping[str, str]) -> bool:
    match one["operator"]:
        case "In":
            return labels.get(one["key"]) in one["values"]
        case "NotIn":
            return labels.get(one["key"]) not in one["values"]
        case "Exists":
            return one["key"] in labels
        case "DoesNotExist":
            return one["key"] not in labels
    raise ValueError(f"{one['operator']} is no operator of a label selector")
