"""One job's version-sync coordinator, run inside the operator: the same one the local runner runs.

Owns its life: begun when the learner has an address, begun anew when that changes or when it fails. Does not own the protocol
(`asyncppo.sync`). The operator may die in the middle of a sync: the learner's ledger knows, and the next coordinator goes on.
"""

from asyncppo.api.job import AsyncPPOJob
from asyncppo.metrics.metric import Distribution
from asyncppo_operator.situation import SyncReport


class Coordination:
    """One job's coordinator, or none.

    results: syncs by how they ended. fenced: rollouts fenced by them. seconds: phase → how long it took, over the slowest rollout.
    """

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.fenced = 0
        self.seconds: dict[str, Distribution] = {}

    def aim(self, base: str, token: str, job: AsyncPPOJob) -> None:
        """Coordinate the job whose learner is at `base`; an empty one: do not."""

    @property
    def report(self) -> SyncReport:
        """How it is."""
        return SyncReport()

    def close(self) -> None:
        """End it."""
