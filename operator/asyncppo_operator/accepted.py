"""What was accepted of a job before: read back from its ConfigMap after the operator restarted.

Owns the reading. Does not own the writing (the planner renders the ConfigMap).
"""

import json
import logging

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError
from asyncppo_operator import names
from asyncppo_operator.children import Key
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.kinds import CONFIG_MAP
from asyncppo_operator.validation import validated

log = logging.getLogger(__name__)


async def recall_accepted(cluster: Cluster, key: Key, uid: str) -> tuple[AsyncPPOJob, str] | None:
    """The accepted job and its text as it is stored, or None when there is none of this uid or this operator no longer understands
    it. Raises ApiError."""
    found = await cluster.get(CONFIG_MAP, key.namespace, names.config(key.name))
    text = ((found or {}).get("data") or {}).get(names.JOB_KEY)
    if not text:
        return None
    try:
        job = validated(json.loads(text))
    except (ValueError, UserError) as error:
        log.warning("%s: the accepted manifest is not one this operator understands: %s", key, error)
        return None
    return (job, str(text)) if job.metadata.uid == uid else None
