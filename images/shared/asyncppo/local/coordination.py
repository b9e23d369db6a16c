"""The coordinator inside the runner's own loop: the very same one that the operator runs per job.

Owns the wiring and its log file. Does not own the protocol (`asyncppo.sync`).
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from asyncppo.api.job import AsyncPPOJob
from asyncppo.sync.coordinator import Coordinator
from asyncppo.sync.limits import SyncLimits
from asyncppo.wire.client import WireClient

COORDINATOR = "coordinator"


async def coordinate(client: WireClient, learner: str, job: AsyncPPOJob) -> None:
    """Drive version syncs against the learner at this URL until the job is over."""
    # Always the same name, so that a runner that resumes takes up the epoch its predecessor left open without waiting for it to
    # stall. Two at once would take each other's epochs for their own; the lock on the run's folder rules that out.
    await Coordinator(client, learner, "local", SyncLimits.of(job.spec)).run()


class _QuietHandler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A line that a full disk does not take is lost: Python's trace of it would go over the live view, and help nobody."""


@contextlib.contextmanager
def logged(log_file: Path) -> Iterator[None]:
    """What the shared package logs goes to a file for the time of the block, and not over the live view."""
    logger = logging.getLogger("asyncppo")
    handler = _QuietHandler(log_file)
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
