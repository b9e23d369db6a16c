"""The worker's calls to the learner, one method per route. Owns deadlines; does not retry, does not decide.

Every method raises RefusedError or UnreachableError. The envelope is the guard's at the time of the call.
"""

from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.experience import GiveBack, LeaseReply, LeaseRequest, Trajectory, Upload, UploadReply
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Joined, Leave, Ready
from asyncppo_runtime.rollout.standing import Standing

CALL_SECONDS = 10.0
UPLOAD_SECONDS = 60.0


class LearnerLink:
    """client: open, with the job's token. learner: base URL."""

    def __init__(self, client: WireClient, learner: str, standing: Standing) -> None:
        self._client = client
        self._learner = learner.rstrip("/")
        self._standing = standing

    async def join(self, url: str) -> Joined:
        """Ask to be a member whose control port is at `url`."""
        guard = self._standing.guard
        message = Join(guard.job_uid, guard.name, url)
        return await self._client.post(self._learner, routes.JOIN, message, Joined, CALL_SECONDS)

    async def ready(self, version: int, weights_hash: str) -> HeartbeatReply:
        """The version is loaded and verified."""
        message = Ready(self._standing.guard.envelope(), version, weights_hash)
        return await self._client.post(self._learner, routes.READY, message, HeartbeatReply, CALL_SECONDS)

    async def heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        """Renew leases, tell load."""
        return await self._client.post(self._learner, routes.HEARTBEAT, message, HeartbeatReply, CALL_SECONDS)

    async def lease(self, count: int, version: int) -> LeaseReply:
        """Up to `count` leases."""
        message = LeaseRequest(self._standing.guard.envelope(), count, version)
        return await self._client.post(self._learner, routes.LEASES, message, LeaseReply, CALL_SECONDS)

    async def trajectories(self, trajectories: list[Trajectory]) -> UploadReply:
        """Finished ones."""
        message = Upload(self._standing.guard.envelope(), trajectories)
        return await self._client.post(self._learner, routes.TRAJECTORIES, message, UploadReply, UPLOAD_SECONDS)

    async def segments(self, partial: list[Trajectory]) -> UploadReply:
        """Unfinished ones, at a Flush."""
        message = Upload(self._standing.guard.envelope(), partial)
        return await self._client.post(self._learner, routes.SEGMENTS, message, UploadReply, UPLOAD_SECONDS)

    async def give_back(self, lease_ids: list[int]) -> UploadReply:
        """Leases that will not be produced."""
        message = GiveBack(self._standing.guard.envelope(), lease_ids)
        return await self._client.post(self._learner, routes.GIVE_BACK, message, UploadReply, CALL_SECONDS)

    async def leave(self) -> HeartbeatReply:
        """Good-bye."""
        return await self._client.post(
            self._learner, routes.LEAVE, Leave(self._standing.guard.envelope()), HeartbeatReply, CALL_SECONDS
        )
