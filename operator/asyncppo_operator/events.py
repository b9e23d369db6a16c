"""Events on jobs, as `kubectl describe` shows them.

Owns their form: the name is made of what is said, or of what it is about, so that the same said again is counted, not repeated. Does
not own what is worth saying (`conditions.py`).
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asyncppo.api.job import API_VERSION, KIND
from asyncppo_operator import names
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.conditions import Event
from asyncppo_operator.errors import ConflictError
from asyncppo_operator.kinds import EVENT
from asyncppo_operator.memory import format_time
from asyncppo_operator.views import brief


def event_object(metadata: Mapping[str, Any], event: Event, now: datetime) -> dict[str, Any]:
    """The core/v1 Event about the job with this metadata."""
    name, namespace, uid = (str(metadata.get(key) or "") for key in ("name", "namespace", "uid"))
    digest = hashlib.sha256("\0".join((uid, event.reason, event.about or event.message)).encode()).hexdigest()[:12]
    at = format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{names.base(name)}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": str(metadata.get("resourceVersion") or ""),
        },
        "reason": event.reason,
        "message": brief(event.message),
        "type": "Warning" if event.warning else "Normal",
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


async def post(cluster: Cluster, metadata: Mapping[str, Any], event: Event, now: datetime) -> None:
    """Make the event, or count the one that is the same, with the newest message. Raises ApiError."""
    body = event_object(metadata, event, now)
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    try:
        await cluster.create(body)
    except ConflictError:
        known = await cluster.get(EVENT, namespace, name)
        count = int((known or {}).get("count") or 1)
        await cluster.merge(
            EVENT, namespace, name, {"count": count + 1, "lastTimestamp": format_time(now), "message": body["message"]}
        )
