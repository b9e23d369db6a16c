"""A small real learner for the rollout's tests: the whole wire surface of leases, membership and weights over HTTP.

It keeps books in plain dictionaries and refuses what the ledger would refuse; it trains nothing.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from prometheus_client import CollectorRegistry

from asyncppo.errors import RefusedError
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import (
    GiveBack,
    Lease,
    LeaseReply,
    LeaseRequest,
    Manifest,
    Refusal,
    Task,
    Trajectory,
    Upload,
    UploadReply,
)
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Joined, Leave, Member, MemberState, Ready
from asyncppo.wire.server import application, endpoint, serve
from asyncppo.wire.syncing import Flush, Load, Loaded, Pause, Paused, Resume, Resumed
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.serve import weights_handler
from asyncppo_runtime.weights.store import WeightStore

TOKEN = "job-token"
UID = "uid-1"
WAIT = 60.0


class LearnerDouble:
    """capacity: leases that may be granted in all."""

    def __init__(self, directory: Path, capacity: int = 1 << 30) -> None:
        self.store = WeightStore(directory)
        self.capacity = capacity
        self.records: dict[int, VersionRecord] = {}
        self.version = -1
        self.epoch = 0
        self.syncing = False
        self.sealed = -1
        self.finished = False
        self.members: dict[str, Member] = {}
        self.leases: dict[int, Lease] = {}
        self.lost: set[int] = set()
        self.received: dict[int, Trajectory] = {}
        self.partial: dict[int, Trajectory] = {}
        self.returned: set[int] = set()
        self.refuse: dict[int, str] = {}
        self.beats: list[Heartbeat] = []
        self.down = False
        self.url = ""
        self.client = WireClient(TOKEN)
        self._incarnations = 0

    async def __aenter__(self) -> Self:
        app = application(TOKEN, CollectorRegistry(), lambda: "")
        for path, kind, handle in (
            (routes.LEASES, LeaseRequest, self._lease),
            (routes.GIVE_BACK, GiveBack, self._give_back),
            (routes.TRAJECTORIES, Upload, self._receive),
            (routes.SEGMENTS, Upload, self._receive_partial),
            (routes.JOIN, Join, self._join),
            (routes.READY, Ready, self._ready),
            (routes.HEARTBEAT, Heartbeat, self._heartbeat),
            (routes.LEAVE, Leave, self._leave),
        ):
            app.router.add_post(path, endpoint(kind, handle))  # type: ignore[arg-type]
        app.router.add_get(routes.WEIGHTS, weights_handler(self.store, self._record))
        self._runner, port = await serve(app, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}"
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.__aexit__(None, None, None)
        await self._runner.cleanup()

    def publish(self, version: int, tensors: dict[str, torch.Tensor]) -> VersionRecord:
        """A new version; it becomes the announced one unless a sync is open."""
        stored = self.store.publish(version, tensors)
        record = VersionRecord(
            version=version,
            parent=version - 1,
            lineage=0,
            train_hash="",
            published_hash=tensors_hash(tensors),
            file_size=stored.size,
            file_sha256=stored.sha256,
        )
        self.records[version] = record
        if not self.syncing:
            self.version = version
        return record

    def fence(self, name: str) -> None:
        """Nothing of this incarnation counts any more."""
        member = self.members[name]
        self.members[name] = Member(name, member.incarnation, member.url, MemberState.FENCED)

    @property
    def in_flight(self) -> set[int]:
        """Leases that have not ended."""
        return set(self.leases) - set(self.received) - self.returned - self.lost

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the books to say so."""
        async with asyncio.timeout(WAIT):
            while not condition():  # noqa: ASYNC110 - the books are plain data
                await asyncio.sleep(0.01)

    async def ready(self, name: str) -> Member:
        """Wait until the member is READY."""
        await self.until(lambda: name in self.members and self.members[name].state is MemberState.READY)
        return self.members[name]

    # --- as a coordinator -----------------------------------------------------------------------------------------------
    def begin(self) -> None:
        """Open the next epoch."""
        self.epoch += 1
        self.syncing = True

    def finish(self, version: int) -> None:
        """Close the epoch: everybody is to be on `version`."""
        self.syncing = False
        self.version = version

    def envelope(self, name: str) -> Envelope:
        """A command's address."""
        return Envelope(job_uid=UID, epoch=self.epoch, target=name, incarnation=self.members[name].incarnation)

    async def pause(self, name: str, ttl: float = 60.0) -> Paused:
        """POST Pause."""
        message = Pause(self.envelope(name), ttl)
        return await self.client.post(self.members[name].url, routes.PAUSE, message, Paused, WAIT)

    async def flush(self, name: str, version: int) -> Manifest:
        """POST Flush."""
        message = Flush(self.envelope(name), version)
        return await self.client.post(self.members[name].url, routes.FLUSH, message, Manifest, WAIT)

    async def load(self, name: str, record: VersionRecord, canary: Canary | None = None) -> Loaded:
        """POST Load."""
        message = Load(self.envelope(name), record, canary)
        return await self.client.post(self.members[name].url, routes.LOAD, message, Loaded, WAIT)

    async def resume(self, name: str, version: int) -> Resumed:
        """POST Resume."""
        message = Resume(self.envelope(name), version)
        return await self.client.post(self.members[name].url, routes.RESUME, message, Resumed, WAIT)

    # --- the wire ---------------------------------------------------------------------------------------------------------
    def _reply(self, name: str, incarnation: int, lost: list[int]) -> HeartbeatReply:
        member = self.members.get(name)
        state = member.state if member and member.incarnation == incarnation else MemberState.FENCED
        record = None if self.syncing else self.records.get(self.version)
        return HeartbeatReply(
            state=state,
            epoch=self.epoch,
            syncing=self.syncing,
            sealed_version=self.sealed,
            record=record,
            finished=self.finished,
            lost_leases=lost,
        )

    def _answering(self) -> None:
        if self.down:
            raise RefusedError(503, "Down", "the learner restarts")

    def _own(self, envelope: Envelope) -> None:
        self._answering()
        member = self.members.get(envelope.target)
        if member is None or member.incarnation != envelope.incarnation or member.state is MemberState.FENCED:
            raise RefusedError(409, "StaleIncarnation", f"{envelope.target} is not incarnation {envelope.incarnation}")

    async def _join(self, message: Join) -> Joined:
        self._answering()
        if message.job_uid != UID:
            raise RefusedError(409, "OtherJob", f"this learner serves job {UID}")
        self._incarnations += 1
        self.members[message.name] = Member(message.name, self._incarnations, message.url, MemberState.JOINING)
        return Joined(self._incarnations, self.epoch, None if self.syncing else self.records.get(self.version))

    async def _ready(self, message: Ready) -> HeartbeatReply:
        self._own(message.envelope)
        name, member = message.envelope.target, self.members[message.envelope.target]
        assert message.weights_hash == self.records[message.version].published_hash
        if not self.syncing and message.version == self.version:
            self.members[name] = Member(name, member.incarnation, member.url, MemberState.READY, message.version)
        return self._reply(name, member.incarnation, [])

    async def _heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        self._answering()
        self.beats.append(message)
        if message.pause_expired and message.envelope.epoch == self.epoch:
            self.syncing = False
        return self._reply(
            message.envelope.target, message.envelope.incarnation, [i for i in message.lease_ids if i in self.lost]
        )

    async def _leave(self, message: Leave) -> HeartbeatReply:
        self._own(message.envelope)
        if self.syncing:
            raise RefusedError(409, "SyncActive", "an epoch is open")
        name, member = message.envelope.target, self.members[message.envelope.target]
        self.members[name] = Member(name, member.incarnation, member.url, MemberState.LEFT)
        return self._reply(name, member.incarnation, [])

    async def _lease(self, message: LeaseRequest) -> LeaseReply:
        self._own(message.envelope)
        if self.finished or self.syncing:
            return LeaseReply([], "Finished" if self.finished else "SyncActive", 0.02)
        granted = []
        for _ in range(min(message.count, self.capacity - len(self.leases))):
            number = len(self.leases) + 1
            lease = Lease(number, number // 4, 0, Task(number // 4, number // 4 + 17), number * 7919, 60.0)
            self.leases[number] = lease
            granted.append(lease)
        return LeaseReply(granted, "" if granted else "AtCapacity", 0.02)

    async def _receive(self, message: Upload) -> UploadReply:
        self._own(message.envelope)
        return self._take(message, self.received)

    async def _receive_partial(self, message: Upload) -> UploadReply:
        self._own(message.envelope)
        return self._take(message, self.partial)

    def _take(self, message: Upload, box: dict[int, Trajectory]) -> UploadReply:
        accepted, refused = [], []
        for trajectory in message.trajectories:
            reason = self.refuse.get(trajectory.lease_id)
            if reason is not None:
                refused.append(Refusal(trajectory.lease_id, -1, reason))
            else:
                box[trajectory.lease_id] = trajectory
                accepted.append(trajectory.lease_id)
        return UploadReply(accepted, refused)

    async def _give_back(self, message: GiveBack) -> UploadReply:
        self._own(message.envelope)
        self.returned.update(message.lease_ids)
        return UploadReply(list(message.lease_ids), [])

    async def _record(self, version: int) -> VersionRecord | None:
        return self.records.get(version)
