"""Joining, heartbeats, leaving. Owns what a member is told to do next and when it was last seen; membership is the ledger's."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from asyncppo.errors import RefusedError
from asyncppo.report.measures import MemberView
from asyncppo.wire.address import url_fault
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.membership import Heartbeat, HeartbeatReply, Join, Joined, Leave, Member, MemberState, Ready
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.reach import unreachable
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LedgerView


@dataclass(frozen=True)
class Seen:
    """A member's newest heartbeat and when it came (monotonic seconds)."""

    at: float
    beat: Heartbeat


class Membership:
    """The learner's side of `asyncppo.wire.membership`. close_abandoned: ends an epoch whose coordinator is gone. pause_seconds: how
    long an epoch has been known here before a member's word ends it. unreachable: why nobody answers at a url, "" when somebody does."""

    def __init__(
        self,
        ledger: OwnThread[Ledger],
        changed: Notice,
        finished: Callable[[], bool],
        close_abandoned: Callable[[int], Awaitable[None]],
        pause_seconds: float,
        unreachable: Callable[[str], Awaitable[str]] = unreachable,
    ) -> None:
        self._ledger = ledger
        self._close_abandoned = close_abandoned
        self._pause_seconds = pause_seconds
        self._unreachable = unreachable
        self._changed = changed
        self._finished = finished
        self._seen: dict[str, Seen] = {}
        # the newest epoch, and since when it is known here (monotonic seconds)
        self._epoch, self._epoch_since = -1, 0.0

    async def join(self, message: Join) -> Joined:
        """A new incarnation; the record is there unless a sync runs. RefusedError 400 BadAddress for a url that is none."""
        if fault := url_fault(message.url):
            raise RefusedError(400, "BadAddress", f"{message.name}: {fault}")
        member = await self._ledger(Ledger.join, message.name, message.url, time.monotonic())
        view = await self._ledger(Ledger.view)
        self._changed.ring()
        return Joined(member.incarnation, view.epoch, _loadable(view))

    async def ready(self, message: Ready) -> HeartbeatReply:
        """Loaded and verified; the answer's state says whether it counts as READY or has to load another version. RefusedError 409
        NotReached while nobody answers at its url: it may ask again, and is waited for by nobody meanwhile."""
        await self._refuse_unreachable(message.envelope)
        try:
            state = await self._ledger(
                Ledger.ready, message.envelope, message.version, message.weights_hash, time.monotonic()
            )
        except LedgerRefusedError as refused:
            raise RefusedError(409, refused.reason, refused.message) from refused
        self._changed.ring()
        return await self._reply(state, [])

    async def _refuse_unreachable(self, sender: Envelope) -> None:
        for member in await self._ledger(Ledger.members):
            if (member.name, member.incarnation, member.state) != (
                sender.target,
                sender.incarnation,
                MemberState.JOINING,
            ):
                continue
            if why := await self._unreachable(member.url):
                raise RefusedError(
                    409,
                    "NotReached",
                    f"{member.name} gave {member.url} as its port, but nobody can be reached there ({why}); "
                    "it takes no part until somebody can: check --advertise, and that the network lets the learner and the coordinator in",
                )

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatReply:
        """Renew leases, note the load, tell the member where the job is; close an epoch nobody drives any more."""
        if beat.pause_expired and await self._abandoned(beat.envelope):
            await self._close_abandoned(beat.envelope.epoch)
        found = await self._ledger(Ledger.heartbeat, beat.envelope, beat.version, beat.lease_ids, time.monotonic())
        if found.state not in (MemberState.FENCED, MemberState.LEFT):
            self._seen[beat.envelope.target] = Seen(time.monotonic(), beat)
        return await self._reply(found.state, found.lost)

    async def _abandoned(self, sender: Envelope) -> bool:
        """Whether to believe that a pause is over and nobody drives its epoch: of a member of that epoch, once the learner's own clock
        allows for it. A worker that lies could undo every sync otherwise."""
        view = await self._ledger(Ledger.view)
        self._note_epoch(view)
        part = any((member.name, member.incarnation) == (sender.target, sender.incarnation) for member in view.members)
        old = time.monotonic() - self._epoch_since >= self._pause_seconds
        return view.open and view.epoch == sender.epoch and part and old

    def _note_epoch(self, view: LedgerView) -> None:
        if view.epoch != self._epoch:
            self._epoch, self._epoch_since = view.epoch, time.monotonic()

    async def drain(self, envelope: Envelope) -> HeartbeatReply:
        """No new leases for this member."""
        try:
            state = await self._ledger(Ledger.drain, envelope.target, time.monotonic())
        except LedgerRefusedError as refused:
            raise RefusedError(404, refused.reason, refused.message) from refused
        return await self._reply(state, [])

    async def leave(self, message: Leave) -> HeartbeatReply:
        """Gone in good order."""
        try:
            state = await self._ledger(Ledger.leave, message.envelope, time.monotonic())
        except LedgerRefusedError as refused:
            raise RefusedError(409, refused.reason, refused.message) from refused
        self._seen.pop(message.envelope.target, None)
        self._changed.ring()
        return await self._reply(state, [])

    async def views(self) -> list[MemberView]:
        """Every member that has not left, with its newest heartbeat's load."""
        members = await self._ledger(Ledger.members)
        return [self._view(member) for member in members if member.state is not MemberState.LEFT]

    def _view(self, member: Member) -> MemberView:
        seen = self._seen.get(member.name)
        if seen is None:
            return MemberView(
                name=member.name,
                incarnation=member.incarnation,
                state=member.state.value,
                version=member.version,
                last_seen_seconds=-1.0,
            )
        return MemberView(
            name=member.name,
            incarnation=member.incarnation,
            state=member.state.value,
            version=seen.beat.version,
            paused=seen.beat.paused,
            running=seen.beat.running,
            outbox=seen.beat.outbox,
            sampled_tokens=seen.beat.sampled_tokens,
            last_seen_seconds=time.monotonic() - seen.at,
        )

    async def _reply(self, state: MemberState, lost: list[int]) -> HeartbeatReply:
        view = await self._ledger(Ledger.view)
        self._note_epoch(view)
        return HeartbeatReply(
            state=state,
            epoch=view.epoch,
            syncing=view.open,
            sealed_version=view.sealed_version,
            record=_loadable(view),
            finished=self._finished(),
            lost_leases=lost,
        )


def _loadable(view: LedgerView) -> VersionRecord | None:
    """What a member outside a sync must be on; None while a sync runs."""
    return None if view.open else view.announced_record
