"""How long a coordinator waits for whom. Owns the deadlines; the manifest's `weightSync` gives the two that matter."""

from dataclasses import dataclass

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.sync.columns import Phase


@dataclass(frozen=True)
class SyncLimits:
    """Seconds. pause, load: a member's deadlines; a member later than that is fenced. resume: how long a member's answer to a Resume
    is waited for, which it need not give: it resumes by itself after a heartbeat. learner: one call to the learner.

    watch: a long poll for news. stall: an open epoch of another coordinator that has not moved for so long is taken over.
    pause_ttl: a pause's time to live; paused members are told again every quarter of it while the sync goes on.
    """

    pause: float = 60.0
    load: float = 300.0
    resume: float = 3.0
    learner: float = 120.0
    watch: float = 10.0
    stall: float = 30.0
    pause_ttl: float = 60.0
    min_ready: int = 1

    @classmethod
    def of(cls, spec: AsyncPPOJobSpec) -> "SyncLimits":
        """The limits of a manifest. A job scaled below `minReady` syncs when all its rollouts are there; scaled to 0 it waits for one."""
        sync = spec.weight_sync
        least = min(sync.min_ready, max(1, spec.rollout.replicas))
        return cls(pause=sync.pause_timeout_seconds, load=sync.load_timeout_seconds, min_ready=least)

    def member(self, phase: Phase) -> float:
        """Deadline of a member's answer in `phase`."""
        if phase is Phase.RESUME:
            return min(self.resume, self.pause)
        return self.load if phase is Phase.LOAD else self.pause
