"""The learner's HTTP surface: which route is answered by which part. Owns nothing but that table.

Every message with an envelope is checked here once: a message of another job is refused before any part sees it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from asyncppo.errors import RefusedError
from asyncppo.report.measures import LearnerStatus
from asyncppo.wire import routes
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import (
    BYTES_PER_TOKEN,
    BYTES_PER_TRAJECTORY,
    UPLOAD_BATCH,
    GiveBack,
    LeaseRequest,
    RawUpload,
)
from asyncppo.wire.membership import Heartbeat, Join, Leave, Ready
from asyncppo.wire.old_logits import GiveBackWork, Scored, TakeWork, WorkerJoin
from asyncppo.wire.server import BODY_LIMIT, BULK_LIMIT, answer, application, endpoint, refuse_other_names
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall
from asyncppo.wire.tokens import identify
from asyncppo_runtime.ledger.errors import LedgerStorageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from asyncppo_runtime.learner.experience import Experience
    from asyncppo_runtime.learner.membership import Membership
    from asyncppo_runtime.learner.scoring_desk import ScoringDesk
    from asyncppo_runtime.learner.synchronization import Synchronization

LONGEST_WAIT = 30.0

log = logging.getLogger(__name__)


def learner_application(
    *,
    token: str,
    job_uid: str,
    registry: "CollectorRegistry",
    ready: Callable[[], str],
    experience: "Experience",
    membership: "Membership",
    synchronization: "Synchronization",
    desk: "ScoringDesk | None",
    weights: Callable[[web.Request], Awaitable[web.StreamResponse]],
    status: Callable[[], Awaitable[LearnerStatus]],
    stop: Callable[[], None],
    storage_failed: Callable[[LedgerStorageError], None],
    context_length: int,
) -> web.Application:
    """Put the routes of `asyncppo.wire.routes` together. token: the job's control token. desk: where the strategy has old-logit
    workers. storage_failed: told when the ledger could not write, which ends the job: whoever called would only try again for ever.
    context_length: of the job, which bounds an upload."""
    app = application(identify(token), registry, ready)
    upload = min(BULK_LIMIT, UPLOAD_BATCH * (context_length * BYTES_PER_TOKEN + BYTES_PER_TRAJECTORY))

    def post(path: str, kind: type[Any], handle: Callable[[Any], Awaitable[object]], limit: int = BODY_LIMIT) -> None:
        async def checked(message: Any) -> object:
            refuse_other_jobs(job_uid, message)
            try:
                return await handle(message)
            except LedgerStorageError as error:
                log.error("%s: %s", path, error)
                storage_failed(error)
                raise RefusedError(503, "StorageFailed", str(error)) from error

        app.router.add_post(path, endpoint(kind, checked, limit=limit, admit=refuse_other_names))

    post(routes.LEASES, LeaseRequest, experience.lease)
    post(routes.GIVE_BACK, GiveBack, experience.give_back)
    post(routes.TRAJECTORIES, RawUpload, experience.receive, upload)
    post(routes.SEGMENTS, RawUpload, experience.receive, upload)
    post(routes.JOIN, Join, membership.join)
    post(routes.READY, Ready, membership.ready)
    post(routes.HEARTBEAT, Heartbeat, membership.heartbeat)
    post(routes.LEAVE, Leave, membership.leave)
    post(routes.DRAIN, Envelope, membership.drain)
    post(routes.SYNC_BEGIN, Begin, synchronization.begin)
    post(routes.SYNC_SCORE, SyncCall, synchronization.score, BULK_LIMIT)
    post(routes.SYNC_SEAL, Seal, synchronization.seal, BULK_LIMIT)
    post(routes.SYNC_STEP, SyncCall, synchronization.step)
    post(routes.SYNC_PUBLISH, SyncCall, synchronization.publish)
    post(routes.SYNC_FINISH, Finish, synchronization.finish)
    if desk is not None:
        post(routes.WORKER_JOIN, WorkerJoin, desk.join)
        post(routes.WORKER_TAKE, TakeWork, desk.take)
        post(routes.WORKER_SCORES, Scored, desk.scores, BULK_LIMIT)
        post(routes.WORKER_GIVE_BACK, GiveBackWork, desk.give_back)
        app.router.add_get(routes.TRAIN_WEIGHTS, desk.weights)

    async def sync_view(request: web.Request) -> web.StreamResponse:
        try:
            wait = max(0.0, min(LONGEST_WAIT, float(request.query.get("wait", "0"))))
        except ValueError as error:
            raise RefusedError(400, "BadQuery", "wait takes seconds, e.g. ?wait=10") from error
        return answer(await synchronization.view_when_wanted(wait))

    async def job_status(_: web.Request) -> web.StreamResponse:
        return web.Response(body=msgspec.json.encode(await status()), content_type="application/json")

    async def stop_job(_: web.Request) -> web.StreamResponse:
        asyncio.get_running_loop().call_soon(stop)
        return web.Response(body=b'{"stopping":true}', content_type="application/json")

    app.router.add_get(routes.SYNC, sync_view)
    app.router.add_get(routes.STATUS, job_status)
    app.router.add_post(routes.STOP, stop_job)
    app.router.add_get(routes.WEIGHTS, weights)
    return app


def refuse_other_jobs(job_uid: str, message: object) -> None:
    """RefusedError 409 OtherJob when the message is of another job (a recycled address, a stale pod)."""
    envelope = getattr(message, "envelope", message)
    if getattr(envelope, "job_uid", job_uid) != job_uid:
        raise RefusedError(409, "OtherJob", f"this learner serves job {job_uid}; the message names another")
