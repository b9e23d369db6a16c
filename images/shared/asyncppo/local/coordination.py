"""The coordinator inside the runner's own loop: the very same one that the operator runs per job.

Owns the wiring. Does not own the protocol (`asyncppo.sync`).
"""

import os

from asyncppo.api.job import AsyncPPOJob
from asyncppo.sync.coordinator import Coordinator
from asyncppo.sync.limits import SyncLimits
from asyncppo.wire.client import WireClient


async def coordinate(client: WireClient, learner: str, job: AsyncPPOJob) -> None:
    """Drive version syncs against the learner at this URL until the job is over."""
    name = f"local-{os.getpid()}"
    await Coordinator(client, learner, name, SyncLimits.of(job.spec.weight_sync)).run()
