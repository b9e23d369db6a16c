"""A learner without a model: the sync, membership and upload routes over the reference rules.

Owns the books, which survive `stop` and `start` as a ledger does, and what happens between a request and its answer (`faults`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from msgspec import structs
from prometheus_client import CollectorRegistry

from asyncppo.sync import arbiter
from asyncppo.sync.books import Books, Held, Piece
from asyncppo.sync.columns import SealRule
from asyncppo.sync.simulation.faults import Faults, faulty
from asyncppo.wire import routes
from asyncppo.wire.experience import Refusal, Upload, UploadReply, segment_digest
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Joined, Leave, Ready
from asyncppo.wire.server import answer, application, endpoint, serve
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall, SyncView
from asyncppo.wire.tokens import identify
from asyncppo.wire.versions import VersionRecord

HOST = "127.0.0.1"


def record_of(version: int) -> VersionRecord:
    """The record of a version without weights."""
    return VersionRecord(
        version=version,
        parent=version - 1,
        lineage=0,
        train_hash=f"train-{version}",
        published_hash=f"published-{version}",
        file_size=0,
        file_sha256="",
    )


class SimulatedLearner:
    """Wants one sync after another, `pace` seconds after the last, until `versions` have been published; then the job is over.

    trained: the version each step was taken from. seconds: what the coordinators measured, one entry per finished epoch.
    """

    def __init__(self, token: str, column: str, versions: int, pace: float = 0.0) -> None:
        self.token = token
        self.versions = versions
        self.books = Books(job_uid="simulated", column=column, batch=versions > 0)
        self.trained: list[int] = []
        self.seconds: list[dict[str, float]] = []
        self.faults = Faults()
        self._pace = pace
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens: the same after a restart."""
        return f"http://{HOST}:{self._port}"

    async def start(self) -> None:
        """Listen."""
        app = application(identify(self.token), CollectorRegistry(), lambda: "")
        self._routes(app)
        self._runner, self._port = await serve(app, HOST, self._port)

    async def stop(self) -> None:
        """Stop listening, at once; open connections are cut."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for connection in list(runner.server.connections) if runner.server is not None else []:
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    def _routes(self, app: web.Application) -> None:
        def post(path: str, kind: type[Any], handle: Callable[[Any], Awaitable[object]]) -> None:
            app.router.add_post(path, faulty(self.faults, path, endpoint(kind, handle)))

        post(routes.SYNC_BEGIN, Begin, self._begin)
        post(routes.SYNC_SCORE, SyncCall, self._score)
        post(routes.SYNC_SEAL, Seal, self._seal)
        post(routes.SYNC_STEP, SyncCall, self._step)
        post(routes.SYNC_PUBLISH, SyncCall, self._publish)
        post(routes.SYNC_FINISH, Finish, self._finish)
        post(routes.JOIN, Join, self._join)
        post(routes.READY, Ready, self._ready)
        post(routes.HEARTBEAT, Heartbeat, self._heartbeat)
        post(routes.LEAVE, Leave, self._leave)
        post(routes.SEGMENTS, Upload, self._receive)
        app.router.add_get(routes.SYNC, self._watch)

    # --- sync -------------------------------------------------------------------------------------------------------------
    async def _watch(self, request: web.Request) -> web.StreamResponse:
        deadline = asyncio.get_running_loop().time() + float(request.query.get("wait", "0"))
        while not (self.view.wanted or self.view.open or self.view.finished):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                break
        return answer(self.view)

    @property
    def view(self) -> SyncView:
        """What it tells coordinators."""
        return arbiter.view_of(self.books, record_of)

    async def _begin(self, call: Begin) -> SyncView:
        return self._now(arbiter.begin(self.books, call))

    async def _score(self, call: SyncCall) -> SyncView:
        books, missing = arbiter.score(self.books, call)
        self._now(books)
        if missing:
            raise arbiter.incomplete(missing)
        return self.view

    async def _seal(self, call: Seal) -> SyncView:
        return self._now(arbiter.seal(self.books, call))

    async def _step(self, call: SyncCall) -> SyncView:
        arbiter.may_step(self.books, call)
        return self.view

    async def _publish(self, call: SyncCall) -> SyncView:
        before = self.books.published
        books = arbiter.published(self.books, call)
        if books.published > before:
            self.trained.append(before)
        return self._now(books)

    async def _finish(self, call: Finish) -> SyncView:
        was_open = self.books.open
        books = arbiter.finish(self.books, call)
        if was_open and not books.open:
            self.seconds.append(call.seconds)
        return self._now(books)

    def _now(self, books: Books) -> SyncView:
        """The books after a call; with none open, the next step waits, or the job is over."""
        if not books.open and not books.failed:
            books = structs.replace(books, finished=books.version >= self.versions)
            if self.books.open and not books.finished:
                asyncio.get_running_loop().call_later(self._pace, self._want)
        self.books = books
        self._changed.set()
        self._changed = asyncio.Event()
        return self.view

    def _want(self) -> None:
        """The next step waits for a sync."""
        if not self.books.finished and not self.books.stepped:
            self._now(structs.replace(self.books, batch=True))

    # --- members ------------------------------------------------------------------------------------------------------------
    async def _join(self, message: Join) -> Joined:
        books, joined = arbiter.join(self.books, message, record_of)
        lease = Held(len(books.leases) + 1, message.name, joined.incarnation)
        self._now(structs.replace(books, leases=(*books.leases, lease)))
        return joined

    async def _ready(self, message: Ready) -> HeartbeatReply:
        self._now(arbiter.ready(self.books, message))
        return arbiter.reply_to(self.books, message.envelope, record_of)

    async def _heartbeat(self, message: Heartbeat) -> HeartbeatReply:
        self._now(arbiter.heartbeat(self.books, message))
        return arbiter.reply_to(self.books, message.envelope, record_of)

    async def _leave(self, message: Leave) -> HeartbeatReply:
        self._now(arbiter.leave(self.books, message))
        return arbiter.reply_to(self.books, message.envelope, record_of)

    def lease_of(self, name: str, incarnation: int) -> int:
        """The lease a member was given when it joined."""
        return next(
            lease.lease_id for lease in self.books.leases if (lease.member, lease.incarnation) == (name, incarnation)
        )

    async def _receive(self, upload: Upload) -> UploadReply:
        pieces = [
            Piece(one.lease_id, segment.index, segment.version, segment_digest(one.token_ids, segment))
            for one in upload.trajectories
            for segment in one.segments
        ]
        books, refused = arbiter.receive(self.books, upload.envelope, pieces)
        if books.rule is not SealRule.SCORED:
            books = arbiter.scored(books)
        self._now(books)
        gone = {(piece.lease_id, piece.index) for piece in refused}
        return UploadReply(
            [one.lease_id for one in upload.trajectories],
            [Refusal(lease, index, "sealed") for lease, index in sorted(gone)],
        )
