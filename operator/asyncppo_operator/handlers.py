"""What kopf is asked to do: log in, and tell of every job it sees. Declares only; the work is the fleet's.

No finalizer and no annotation is ever put on a job: everything a job owns goes by the cluster's own garbage collection, so deleting a
job never waits for the operator. That is why these are event handlers and not kopf's daemons, which need a finalizer.
"""

from collections.abc import Mapping
from typing import Any

import kopf

from asyncppo.api.job import GROUP, PLURAL, VERSION
from asyncppo_operator import names
from asyncppo_operator.children import Key
from asyncppo_operator.fleet import Fleet


def registry(fleet: Fleet) -> kopf.OperatorRegistry:
    """Kopf's registry for one fleet."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=made)
    async def job(event: Mapping[str, Any], **_: Any) -> None:
        raw = dict(event["object"])
        if event["type"] == "DELETED":
            metadata = raw["metadata"]
            fleet.deleted(Key(metadata["namespace"], metadata["name"]), metadata["uid"])
        else:
            fleet.seen(raw)

    return made


def settings() -> kopf.OperatorSettings:
    """Kopf's settings, each set on purpose; its own defaults suit interactive use."""
    made = kopf.OperatorSettings()
    made.scanning.disabled = True  # no right to list namespaces or CRDs is needed
    made.posting.enabled = False  # events are ours
    made.posting.reporting_component = names.FIELD_MANAGER
    made.networking.request_timeout = 30
    made.networking.connect_timeout = 10
    made.networking.error_backoffs = (1, 2, 4, 5)  # then the watch begins anew, for ever
    made.watching.server_timeout = 300
    made.watching.client_timeout = 310
    made.watching.reconnect_backoff = 1.0
    # a worker is a task that hands an event on and then stays idle for its object: with a limit, the jobs beyond it would wait for that
    made.queueing.worker_limit = None
    made.queueing.idle_timeout = 1.0
    made.execution.default_backoff = 15
    # never written by this operator; set all the same, for a later handler must not take kopf's own names
    made.persistence.finalizer = f"{names.DOMAIN}/operator"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.DOMAIN)
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=names.DOMAIN, key="last-handled")
    return made
