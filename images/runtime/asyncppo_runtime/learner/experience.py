"""The experience service: leases out, trajectories in. Owns admission; what is kept, and how, is the ledger's.

Both are one ledger transaction each, so an answer means durable.
"""

import time
from collections.abc import Callable

import msgspec

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.errors import RefusedError
from asyncppo.report.measures import Failures
from asyncppo.report.remarks import hopeless
from asyncppo.wire.experience import GiveBack, LeaseReply, LeaseRequest, RawUpload, UploadReply, read_trajectories
from asyncppo_runtime.learner.errors import EpisodesError, LearnerError
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.selection import live_groups_allowed
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import FailureRun, Receipt

LEASE_TTL_SECONDS = 60.0
RETRY_SECONDS = 0.05
BEHIND_RETRY_SECONDS = 0.5
STALLED_AFTER_SECONDS = 30.0
FAILURES_PER_LEASE = 2
"""Where many run at once the quick failures come in first: a run of them says something when it is longer than this many times what is
still under way."""


class Experience:
    """Grants leases within the admission capacity and takes what comes of them.

    resident: version of the learner's parameters. updates_left: optimizer steps still to take. wanted_since: when the pending step
    began to wait for a sync (None: it does not). finished: whether the job is over. scoring_behind: whether old-logit workers lag too far.
    fail: ends the job, when nothing good comes in any more.
    """

    def __init__(
        self,
        spec: AsyncPPOJobSpec,
        ledger: OwnThread[Ledger],
        changed: Notice,
        resident: Callable[[], int],
        updates_left: Callable[[], int],
        wanted_since: Callable[[], float | None],
        finished: Callable[[], bool],
        scoring_behind: Callable[[], bool],
        fail: Callable[[LearnerError], None],
    ) -> None:
        self._spec = spec
        self._ledger = ledger
        self._changed = changed
        self._resident = resident
        self._updates_left = updates_left
        self._wanted_since = wanted_since
        self._finished = finished
        self._scoring_behind = scoring_behind
        self._fail = fail

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        """Up to `count` leases, or none and the reason. RefusedError 409 for a sender that is no member."""
        if self._finished():
            return LeaseReply([], "Finished", 1.0)
        if self._scoring_behind():
            return LeaseReply([], "ScoringBehind", BEHIND_RETRY_SECONDS)
        algorithm, staleness = self._spec.algorithm, self._spec.staleness
        allowed = live_groups_allowed(
            algorithm.batch_groups,
            staleness.max_versions,
            self._updates_left() * algorithm.batch_groups,
            lag=self._resident() - request.version,
        )
        try:
            leases = await self._ledger(
                Ledger.grant,
                request.envelope,
                request.version,
                request.count,
                allowed,
                LEASE_TTL_SECONDS,
                time.monotonic(),
            )
        except LedgerRefusedError as refused:
            if refused.reason in {"SyncActive", "StaleVersion", "NotReady"}:
                return LeaseReply([], refused.reason, RETRY_SECONDS)
            raise RefusedError(409, refused.reason, refused.message) from refused
        if leases:
            return LeaseReply(leases)
        return LeaseReply([], "SyncStalled" if self._stalled() else "AtCapacity", RETRY_SECONDS)

    def _stalled(self) -> bool:
        since = self._wanted_since()
        return since is not None and time.monotonic() - since > STALLED_AFTER_SECONDS

    async def receive(self, upload: RawUpload) -> UploadReply:
        """Take finished or partial trajectories; durable when it answers. One that cannot be read is refused, and a loss of its place.

        RefusedError 409 for a sender that is no member, 400 when it cannot even be read whose trajectory one is.
        """
        try:
            trajectories = read_trajectories(upload)
        except msgspec.DecodeError as error:
            raise RefusedError(400, "BadMessage", f"an upload takes trajectories: {error}") from error
        try:
            receipt = await self._ledger(Ledger.receive, upload.envelope, trajectories, time.monotonic())
        except LedgerRefusedError as refused:
            raise RefusedError(409, refused.reason, refused.message) from refused
        self._judge(receipt)
        self._changed.ring()
        return receipt.reply

    def _judge(self, receipt: Receipt) -> None:
        """Whether there is any hope left that a batch will come."""
        limit = self._spec.environment.fail_after
        enough = max(limit, FAILURES_PER_LEASE * receipt.in_flight)
        if receipt.failures.in_a_row >= enough:
            self._fail(EpisodesError(hopeless(failure_figures(receipt.failures, limit), enough)))

    async def give_back(self, message: GiveBack) -> UploadReply:
        """End leases unproduced."""
        try:
            ended = await self._ledger(Ledger.give_back, message.envelope, message.lease_ids, time.monotonic())
        except LedgerRefusedError as refused:
            raise RefusedError(409, refused.reason, refused.message) from refused
        self._changed.ring()
        return UploadReply(ended, [])


def failure_figures(run: FailureRun, limit: int) -> Failures:
    """The ledger's run as a measure. limit: environment.failAfter."""
    cause = run.commonest
    return Failures(
        in_a_row=run.in_a_row,
        limit=limit,
        reason=cause.reason,
        count=cause.count,
        example=cause.example,
        last=run.last,
    )
