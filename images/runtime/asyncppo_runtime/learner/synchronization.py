"""The learner's side of version sync: answers every call of `asyncppo.wire.syncing` from the ledger. Owns no state.

The ledger arbitrates (epochs, seals), `training` does the work (score, step, publish); this room only puts them in order and turns
their refusals into answers a coordinator understands. Sent again with the same epoch, every call answers the same.
"""

import time
from collections.abc import Callable

from asyncppo.errors import RefusedError
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall, SyncView
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.training import Training
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LedgerView, SealRule

STEP_WAIT_SECONDS = 20.0


class Synchronization:
    """Handlers of the sync routes.

    column: name of the protocol's column. rule: what it demands of a seal. outcome: (finished, failed) of the job.
    """

    def __init__(
        self,
        column: str,
        rule: SealRule,
        ledger: OwnThread[Ledger],
        training: Training,
        changed: Notice,
        outcome: Callable[[], tuple[bool, str]],
    ) -> None:
        self._column = column
        self._rule = rule
        self._ledger = ledger
        self._training = training
        self._changed = changed
        self._outcome = outcome

    async def view_when_wanted(self, wait: float) -> SyncView:
        """At once when a sync is wanted or open or the job is over, else at the first such moment within `wait` seconds."""
        deadline = time.monotonic() + wait
        while True:
            view = self._wire(await self._ledger(Ledger.view))
            left = deadline - time.monotonic()
            if view.wanted or view.open or view.finished or left <= 0:
                return view
            await self._changed.wait(min(left, 1.0))

    async def begin(self, call: Begin) -> SyncView:
        """Compare-and-set of the epoch. 409 NotWanted when there is nothing to sync for."""
        view = await self._ledger(Ledger.view)
        if not view.open and not self._wire(view).wanted:
            raise RefusedError(409, "NotWanted", "no step and no restore waits for a sync")
        return await self._arbitrate(Ledger.begin, call.coordinator, call.expected_epoch, time.monotonic())

    async def score(self, call: SyncCall) -> SyncView:
        """Score every recorded segment of the version that is about to be sealed, then compare with the manifests as sets.

        409 ManifestIncomplete names segments a member holds that the ledger has not (they were lost on the way: flush again).
        """
        view = await self._held(call)
        if not view.sealed:
            await self._training.score_unscored(view.announced)
            gaps = await self._ledger(Ledger.manifest_gaps, call.manifests)
            missing = [*gaps.unrecorded, *gaps.unscored, *gaps.conflicting]
            if missing:
                raise RefusedError(
                    409, "ManifestIncomplete", f"{len(missing)} segments are not scored, the first is {missing[0]}"
                )
        return self._wire(await self._ledger(Ledger.view))

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
            if self._rule is SealRule.SCORED and not view.sealed:
                raise RefusedError(409, "NotSealed", "this column seals a version before it steps away from it")
            if not await self._training.take_step(STEP_WAIT_SECONDS):
                raise RefusedError(503, "NotReady", "the gradient is still being computed; ask again")
        return self._wire(await self._ledger(Ledger.view))

    async def publish(self, call: SyncCall) -> SyncView:
        """Weights to the store, then one ledger row. Idempotent."""
        view = await self._held(call)
        if not view.stepped:
            if not await self._training.take_step(STEP_WAIT_SECONDS):
                raise RefusedError(503, "NotReady", "the gradient is still being computed; ask again")
            await self._training.publish()
        return self._wire(await self._ledger(Ledger.view))

    async def finish(self, call: Finish) -> SyncView:
        """The epoch is over; its phase seconds go on record."""
        answer = await self._arbitrate(
            Ledger.finish, call.epoch, call.coordinator, call.loaded, call.fenced, call.seconds, time.monotonic()
        )
        await self._training.announced()
        return answer

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
        return self._wire(view)

    def _wire(self, view: LedgerView) -> SyncView:
        finished, failed = self._outcome()
        return SyncView(
            job_uid=view.job_uid,
            column=self._column,
            epoch=view.epoch,
            owner=view.owner,
            open=view.open,
            sealed=view.sealed,
            version=view.announced,
            wanted=not finished and (self._training.wanted or view.unannounced),
            stepped=view.stepped,
            members=view.members,
            record=view.record,
            canary=view.canary,
            finished=finished,
            failed=failed,
        )
