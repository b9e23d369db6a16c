"""The learner's side of version sync: answers every call of `asyncppo.wire.syncing` from the ledger. Owns no state.

The ledger arbitrates (epochs, seals), `training` does the work (score, step, publish); this room only puts them in order and turns
their refusals into answers a coordinator understands. Sent again with the same epoch, every call answers the same.
"""

import logging
import time
from collections.abc import Callable

from asyncppo.errors import RefusedError
from asyncppo.sync.columns import Column, SealRule
from asyncppo.wire.membership import MemberState
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall, SyncView
from asyncppo_runtime.learner.errors import GuardError, LearnerError
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.training import Training
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LedgerView

STEP_WAIT_SECONDS = 20.0

log = logging.getLogger(__name__)


class Synchronization:
    """Handlers of the sync routes.

    column: of the protocol, by the job's strategy. outcome: (finished, failed) of the job.
    """

    def __init__(
        self,
        column: Column,
        ledger: OwnThread[Ledger],
        training: Training,
        changed: Notice,
        outcome: Callable[[], tuple[bool, str]],
    ) -> None:
        self._column = column
        self._ledger = ledger
        self._training = training
        self._changed = changed
        self._outcome = outcome

    async def view_when_wanted(self, wait: float) -> SyncView:
        """At once when a sync is wanted or open or the job is over, else at the first such moment within `wait` seconds."""
        deadline = time.monotonic() + wait
        while True:
            tick = self._changed.tick
            view = await self._look()
            left = deadline - time.monotonic()
            if view.wanted or view.open or view.finished or left <= 0:
                return view
            await self._changed.wait(tick, min(left, 1.0))

    async def begin(self, call: Begin) -> SyncView:
        """Compare-and-set of the epoch. 409 NotWanted when there is nothing to sync for."""
        return await self._arbitrate(
            Ledger.begin, call.coordinator, call.expected_epoch, time.monotonic(), self._wanted
        )

    async def score(self, call: SyncCall) -> SyncView:
        """Score every recorded segment of the version that is about to be sealed, then compare with the manifests as sets.

        409 ManifestIncomplete names segments a member holds that the ledger has not (they were lost on the way: flush again).
        """
        view = await self._held(call)
        if not view.sealed:
            try:
                await self._training.score_unscored()
            except Exception as error:
                log.exception("scoring failed")
                self._training.fail(LearnerError(f"scoring failed: {error!r}"))
            gaps = await self._ledger(Ledger.manifest_gaps, call.manifests)
            missing = [*gaps.unrecorded, *gaps.unscored, *gaps.conflicting]
            if self._training.failure is not None:
                raise RefusedError(409, "JobFailed", str(self._training.failure))
            if missing:
                raise RefusedError(
                    409, "ManifestIncomplete", f"{len(missing)} segments are not scored, the first is {missing[0]}"
                )
        return await self._look()

    async def seal(self, call: Seal) -> SyncView:
        """The commit point."""
        return await self._arbitrate(
            Ledger.seal,
            call.epoch,
            call.coordinator,
            call.version,
            call.members,
            call.manifests,
            call.fenced,
            time.monotonic(),
        )

    async def step(self, call: SyncCall) -> SyncView:
        """The optimizer step, once per epoch. 409 NotSealed before the seal where the column demands it; 503 NotReady while the
        gradient is still being computed (after a restart): ask again."""
        view = await self._held(call)
        if not view.stepped:
            if self._column.rule is SealRule.SCORED and not view.sealed:
                raise RefusedError(409, "NotSealed", "this column seals a version before it steps away from it")
            if not await self._training.take_step(STEP_WAIT_SECONDS):
                raise RefusedError(503, "NotReady", "the gradient is still being computed; ask again")
        return await self._look()

    async def publish(self, call: SyncCall) -> SyncView:
        """Weights to the store, then one ledger row. Idempotent."""
        view = await self._held(call)
        if not view.stepped:
            if not await self._training.take_step(STEP_WAIT_SECONDS):
                raise RefusedError(503, "NotReady", "the gradient is still being computed; ask again")
            await self._training.publish()
        return await self._look()

    async def finish(self, call: Finish) -> SyncView:
        """The epoch is over: announced when it was sealed, rolled back when not. A publication that every member refused fails the
        job, and the version before it serves on."""
        view = await self._ledger(Ledger.view)
        if call.bad_publication and view.epoch == call.epoch and view.owner == call.coordinator:
            self._training.fail(GuardError(f"every rollout refused version {view.version}: {call.bad_publication}"))
        if view.epoch == call.epoch and view.open and not view.sealed:
            for name in call.fenced:
                await self._ledger(Ledger.fence, name, "no answer in an unsealed epoch", time.monotonic())
            return await self._arbitrate(Ledger.roll_back, call.epoch, time.monotonic())
        if self._training.failure is not None and call.bad_publication:
            return await self._look()  # not announced: the version before it serves on
        answer = await self._arbitrate(
            Ledger.finish, call.epoch, call.coordinator, call.loaded, call.fenced, call.seconds, time.monotonic()
        )
        await self._training.announced()
        return answer

    async def close_abandoned(self, epoch: int) -> None:
        """A member's pause in `epoch` has outlived its time to live: nobody drives it any more.

        Unsealed: rolled back. Sealed and published: finished with every member of it, who load the version by themselves. Sealed and
        not published: it waits for a coordinator, there is nothing to load yet.
        """
        view = await self._ledger(Ledger.view)
        if view.epoch != epoch or not view.open:
            return
        if not view.sealed:
            await self._arbitrate(Ledger.roll_back, epoch, time.monotonic())
        elif view.stepped:
            members = [member.name for member in view.members]
            await self._arbitrate(Ledger.finish, epoch, view.owner, members, [], {}, time.monotonic())
            await self._training.announced()

    async def _held(self, call: SyncCall) -> LedgerView:
        view = await self._ledger(Ledger.view)
        if view.epoch != call.epoch or view.owner != call.coordinator or not view.open:
            raise RefusedError(
                409, "EpochTaken", f"epoch {call.epoch} of {call.coordinator} is over; the ledger is at {view.epoch}"
            )
        return view

    async def _arbitrate(self, method: Callable[..., LedgerView], *arguments: object) -> SyncView:
        try:
            view = await self._ledger(method, *arguments)
        except LedgerRefusedError as refused:
            raise RefusedError(409, refused.reason, refused.message) from refused
        self._changed.ring()
        return await self._look(view)

    def _wanted(self, view: LedgerView) -> bool:
        return not self._outcome()[0] and (self._training.wanted or view.unannounced)

    async def _look(self, view: LedgerView | None = None) -> SyncView:
        finished, failed = self._outcome()
        if view is None:
            view = await self._ledger(Ledger.view)
        members = [
            m for m in await self._ledger(Ledger.members) if m.state in (MemberState.READY, MemberState.DRAINING)
        ]
        return SyncView(
            job_uid=view.job_uid,
            column=self._column.name,
            epoch=view.epoch,
            owner=view.owner,
            open=view.open,
            sealed=view.sealed,
            version=view.announced,
            wanted=self._wanted(view),
            stepped=view.stepped or view.unannounced,
            members=view.members if view.open else members,
            record=view.record,
            canary=view.canary,
            finished=finished,
            failed=failed,
        )
