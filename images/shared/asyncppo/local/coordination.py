"""The coordinator inside the runner's own loop: the very same one that the operator runs per job.

Owns the wiring and its log file. Does not own the protocol (`asyncppo.sync`).
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from asyncppo.api.job import AsyncPPOJob
from asyncppo.sync.coordinator import Coordinator
from asyncppo.sync.limits import SyncLimits
from asyncppo.wire.client import WireClient

COORDINATOR = "coordinator"


async def coordinate(client: WireClient, learner: str, job: AsyncPPOJob) -> None:
    """Drive version syncs against the learner at this URL until the job is over."""
    # Two coordinators of one name would take each other's epochs for their own: a name is never used twice.
    name = f"local-{os.getpid()}-{secrets.token_hex(4)}"
    await Coordinator(client, learner, name, SyncLimits.of(job.spec.weight_sync)).run()


@contextlib.contextmanager
def logged(log_file: Path) -> Iterator[None]:
    """What the shared package logs goes to a file for the time of the block, and not over the live view."""
    logger = logging.getLogger("asyncppo")
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.level, logger.propagate = before
        logger.removeHandler(handler)
        handler.close()
