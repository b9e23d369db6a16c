"""A rollout without an engine: the control routes behind a MemberGuard, a heart, and segments of one made-up token each.

Owns what a rollout's program does around the guard. Does not own which command is obeyed (`member.py`).
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from asyncppo.errors import RefusedError, UnreachableError
from asyncppo.sync.columns import COLUMNS
from asyncppo.sync.member import Advice, MemberGuard, Mode
from asyncppo.sync.simulation.faults import Faults, faulty
from asyncppo.sync.simulation.learner import HOST
from asyncppo.wire import routes
from asyncppo.wire.client import WireClient
from asyncppo.wire.experience import Manifest, ManifestEntry, Segment, Trajectory, Upload, UploadReply, segment_digest
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Joined, Ready
from asyncppo.wire.server import application, endpoint, serve
from asyncppo.wire.syncing import Flush, Load, Loaded, Pause, Paused, Resume, Resumed
from asyncppo.wire.tokens import Role, token_of


class SimulatedRollout:
    """Joins, obeys, beats.

    token: control's, from which its own is made. work: seconds each command takes it. lease_of: asks the learner's side which lease an
    incarnation holds (None: it samples nothing). sampled: every segment's (lease, index, version) ever sampled. load_error: reason with
    which it refuses to load. ready: set once it has sampled.
    """

    def __init__(
        self,
        token: str,
        learner_url: str,
        name: str,
        *,
        column: str = "Barrier",
        beat: float = 0.1,
        work: float = 0.0,
        lease_of: Callable[[str, int], int] | None = None,
    ) -> None:
        self.guard = MemberGuard(job_uid="simulated", name=name)
        self.faults = Faults()
        self.sampled: list[tuple[int, int, int]] = []
        self.load_error = ""
        self.ready = asyncio.Event()
        self._flushes = COLUMNS[column].flushes
        self._token = token_of(token, Role.ROLLOUT, name)
        self._learner = learner_url
        self._beat = beat
        self._work = work
        self._lease_of = lease_of
        self._lease = 0
        self._held: list[Segment] = []
        self._next = 0
        self._client = WireClient(self._token)
        self._runner: web.AppRunner | None = None
        self._heart: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port, and begin to live."""
        app = application(self._token, CollectorRegistry(), lambda: "")

        def post(path: str, kind: type[Any], handle: Callable[[Any], Awaitable[object]]) -> None:
            async def worked(message: Any) -> object:
                await asyncio.sleep(self._work)
                return await handle(message)

            app.router.add_post(path, faulty(self.faults, path, endpoint(kind, worked)))

        post(routes.PAUSE, Pause, self._pause)
        post(routes.FLUSH, Flush, self._flush)
        post(routes.LOAD, Load, self._load)
        post(routes.RESUME, Resume, self._resume)
        self._runner, port = await serve(app, HOST, 0)
        self.url = f"http://{HOST}:{port}"
        await self._client.__aenter__()
        self._heart = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Gone, with all it held."""
        if self._heart is not None:
            self._heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heart
        if self._runner is not None:
            for connection in list(self._runner.server.connections) if self._runner.server is not None else []:
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
        await self._client.__aexit__(None, None, None)

    # --- commands -------------------------------------------------------------------------------------------------------------
    async def _pause(self, message: Pause) -> Paused:
        self.guard = self.guard.pause(message, time.monotonic())
        return Paused(self.guard.envelope(), self.guard.version, 0.0)

    async def _flush(self, message: Flush) -> Manifest:
        self.guard.flush(message)
        held = [segment for segment in self._held if segment.version == message.version]
        tokens = [0] * self._next
        if held:
            upload = Upload(
                self.guard.envelope(),
                [Trajectory(lease_id=self._lease, group_id=0, token_ids=tokens, segments=held, finished=False)],
            )
            try:
                await self._client.post(self._learner, routes.SEGMENTS, upload, UploadReply, 5.0)
            except UnreachableError as error:
                raise RefusedError(503, "LearnerUnreachable", str(error)) from error
        entries = [
            ManifestEntry(self._lease, segment.index, segment.tokens, segment_digest(tokens, segment))
            for segment in held
        ]
        return Manifest(self.guard.name, self.guard.incarnation, message.version, entries)

    async def _load(self, message: Load) -> Loaded:
        guard, needed = self.guard.load(message)
        if needed and self.load_error:
            raise RefusedError(422, self.load_error, "told to refuse")
        self.guard = guard.loaded(message.record.version) if needed else guard
        self._forget()
        return Loaded(self.guard.envelope(), self.guard.version, message.record.published_hash, 0.0, 0.0)

    async def _resume(self, message: Resume) -> Resumed:
        self.guard = self.guard.resume(message)
        return Resumed(self.guard.envelope(), self.guard.version)

    # --- a life -----------------------------------------------------------------------------------------------------------------
    async def _live(self) -> None:
        """Join, sample, and tell the learner every `beat` seconds; do as its answers advise."""
        while True:
            # The learner may be away, or this incarnation over: the next beat tells.
            with contextlib.suppress(UnreachableError, RefusedError):
                await self._once()
            await asyncio.sleep(self._beat)

    async def _once(self) -> None:
        if self.guard.mode is Mode.OUT:
            join = Join(self.guard.job_uid, self.guard.name, self.url)
            joined = await self._client.post(self._learner, routes.JOIN, join, Joined, 5.0)
            self.guard = self.guard.joined(joined)
            if self._lease_of is not None:
                self._lease, self._next, self._held = self._lease_of(self.guard.name, joined.incarnation), 0, []
        if self.guard.samples and self._lease:
            self._sample()
        beat = Heartbeat(
            envelope=self.guard.envelope(),
            version=self.guard.version,
            lease_ids=[],
            paused=self.guard.mode is Mode.PAUSED,
            pause_expired=self.guard.pause_expired(time.monotonic()),
        )
        await self._told(routes.HEARTBEAT, beat)

    async def _told(self, path: str, message: Heartbeat | Ready) -> None:
        reply = await self._client.post(self._learner, path, message, HeartbeatReply, 5.0)
        self.guard, advice = self.guard.heard(reply, message.envelope.incarnation, time.monotonic())
        if advice is Advice.LOAD and reply.record is not None:
            self.guard = self.guard.loaded(reply.record.version)
            self._forget()
        if self.guard.samples:
            self.ready.set()
        if advice in (Advice.LOAD, Advice.ANNOUNCE) and reply.record is not None:
            ready = Ready(self.guard.envelope(), self.guard.version, reply.record.published_hash)
            if isinstance(message, Heartbeat):
                await self._told(routes.READY, ready)

    def _sample(self) -> None:
        segment = Segment(self._next, self._next, self._next + 1, self.guard.version, "", [0.0])
        self._next += 1
        self._held.append(segment)
        self.sampled.append((self._lease, segment.index, segment.version))

    def _forget(self) -> None:
        """Where versions are flushed, what was sampled under older ones is in the ledger."""
        if self._flushes:
            self._held = [segment for segment in self._held if segment.version >= self.guard.version]
