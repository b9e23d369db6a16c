"""A rollout's side of the protocol as pure logic: which commands it obeys, and what the learner's answers tell it to do.

Owns the decision, never the deed: the rollout's program pauses its engine, loads weights and sends messages, and asks this guard
before and tells it after. Does not own time (passed in, monotonic seconds), segments or leases.

A guard is a value. Every method that changes it returns the new one:

    guard = MemberGuard(job_uid=uid, name=name).joined(answer)      # after POST /v1/members/join
    guard = guard.pause(message, now)                               # may raise RefusedError: answer it, change nothing
    ...stop the engine, then answer Paused...

The order that keeps tokens safe: take the new guard *before* the deed for what forbids sampling (`pause`), *after* it for what
allows sampling or says what is loaded (`loaded`, `resume`, `heard`).
"""

from enum import StrEnum
from typing import Self

import msgspec

from asyncppo.errors import RefusedError
from asyncppo.sync.reasons import Reason
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.membership import HeartbeatReply, Joined, MemberState
from asyncppo.wire.syncing import Flush, Load, Pause, Resume


class Mode(StrEnum):
    """OUT: no incarnation; join. JOINING: has one, samples nothing until the learner counts it as ready. RUNNING: samples under
    `version`. PAUSED: samples nothing until told, or until the learner says so. PARKED: the job is over."""

    OUT = "Out"
    JOINING = "Joining"
    RUNNING = "Running"
    PAUSED = "Paused"
    PARKED = "Parked"


class Advice(StrEnum):
    """What a reply of the learner (to a heartbeat, a Ready) asks for.

    CONTINUE: nothing. WAIT: sample nothing, ask again. LOAD: sample nothing, load the reply's record, call `loaded`, send Ready.
    ANNOUNCE: send Ready (the version is loaded already). RESUME: sample. REJOIN: this incarnation is dead; stop sampling, drop its
    leases but not its outbox, join again. PARK: the job is over; stop and stay.
    """

    CONTINUE = "Continue"
    WAIT = "Wait"
    LOAD = "Load"
    ANNOUNCE = "Announce"
    RESUME = "Resume"
    REJOIN = "Rejoin"
    PARK = "Park"


class MemberGuard(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout knows of the protocol.

    epoch: the newest it has heard of; older ones are refused. over: the newest epoch it knows to be over (it resumed since): no
    command of it is obeyed any more. version: loaded and verified; -1 before the first. pause_until: when the pause's time to live,
    `pause_seconds` long, ends.
    """

    job_uid: str
    name: str
    incarnation: int = 0
    epoch: int = 0
    over: int = -1
    version: int = -1
    mode: Mode = Mode.OUT
    pause_until: float = 0.0
    pause_seconds: float = 0.0

    @property
    def samples(self) -> bool:
        """Whether tokens may be generated, environments reset and leases taken."""
        return self.mode is Mode.RUNNING

    def envelope(self) -> Envelope:
        """The address to put on a message to the learner, or on an answer."""
        return Envelope(job_uid=self.job_uid, epoch=self.epoch, target=self.name, incarnation=self.incarnation)

    def pause_expired(self, now: float) -> bool:
        """Whether the pause has outlived its time to live: say so in the next heartbeat."""
        return self.mode is Mode.PAUSED and now >= self.pause_until

    # --- commands of a coordinator: RefusedError, or obeyed ---------------------------------------------------------------
    def pause(self, message: Pause, now: float) -> Self:
        """Stop sampling until `now` + its time to live, at least. Sent again in a pause it prolongs it."""
        self._address(message.envelope)
        epoch = message.envelope.epoch
        if epoch <= self.over:
            raise _refused(Reason.STALE_EPOCH, f"epoch {epoch} is over; this member has resumed since")
        if self.version < 0:
            raise _refused(Reason.NOT_JOINED, "nothing is loaded yet; this member cannot be part of a sync")
        ttl = message.ttl_seconds
        return self._with(mode=Mode.PAUSED, epoch=epoch, pause_until=now + ttl, pause_seconds=ttl)

    def flush(self, message: Flush) -> None:
        """Whether to upload and answer with a manifest. A member that is on another version holds no segment of this one."""
        self._paused(message.envelope)

    def load(self, message: Load) -> tuple[Self, bool]:
        """(guard, whether the record is yet to be loaded). False: it is loaded already, so answer at once."""
        self._address(message.envelope)
        if message.record.version == self.version and self.mode in (Mode.RUNNING, Mode.PAUSED):
            return self._with(epoch=message.envelope.epoch), False
        self._paused(message.envelope)
        if message.record.version < self.version:
            raise _refused(
                Reason.STALE_VERSION, f"version {self.version} is loaded; told to go back to {message.record.version}"
            )
        return self._with(epoch=message.envelope.epoch), True

    def resume(self, message: Resume) -> Self:
        """Sample under the message's version, which must be the loaded one."""
        self._address(message.envelope)
        if message.version != self.version:
            raise _refused(Reason.STALE_VERSION, f"version {self.version} is loaded; told to resume {message.version}")
        if self.mode is Mode.RUNNING:
            return self
        self._paused(message.envelope)
        return self._resumed(message.envelope.epoch)

    # --- what the member itself has done, and what the learner answered -----------------------------------------------------
    def joined(self, answer: Joined) -> Self:
        """A new incarnation. What is loaded stays loaded."""
        return self._with(mode=Mode.JOINING, incarnation=answer.incarnation, epoch=max(self.epoch, answer.epoch))

    def loaded(self, version: int) -> Self:
        """A version is loaded and verified; the engine is still stopped."""
        return self._with(version=version)

    def heard(self, reply: HeartbeatReply, incarnation: int, now: float) -> tuple[Self, Advice]:
        """Take in the answer to a Heartbeat or Ready that was sent as `incarnation`.

        An answer may be older than a command that came meanwhile: one about an older epoch or incarnation says nothing. A newer
        epoch that is open gives a paused member a whole time to live again: its coordinator may not have come to it yet.
        """
        if reply.finished:
            return self._with(mode=Mode.PARKED), Advice.PARK
        if incarnation != self.incarnation or reply.epoch < self.epoch:
            return self, self._idle_advice()
        if reply.state is MemberState.LEFT:
            return self._with(mode=Mode.PARKED), Advice.PARK
        if reply.state is MemberState.FENCED:
            return self._with(mode=Mode.OUT), Advice.REJOIN
        if reply.syncing or reply.record is None:
            return self._in_sync(reply, now)
        guard = self._with(epoch=reply.epoch)
        return guard._outside_sync(reply, reply.record.version)

    # --- inside -------------------------------------------------------------------------------------------------------------
    def _in_sync(self, reply: HeartbeatReply, now: float) -> tuple[Self, Advice]:
        """An epoch is open. One that has sealed our version while we sampled cannot have counted us in: it has fenced us."""
        if self.mode is Mode.RUNNING and reply.epoch > self.over and reply.sealed_version >= self.version:
            return self._with(mode=Mode.OUT), Advice.REJOIN
        until = now + self.pause_seconds if reply.epoch > self.epoch else self.pause_until
        return self._with(epoch=reply.epoch, pause_until=until), self._idle_advice()

    def _outside_sync(self, reply: HeartbeatReply, version: int) -> tuple[Self, Advice]:
        """No epoch is open: whatever epoch we were paused for is over, and `version` is what everybody must be on."""
        if version != self.version:
            mode = Mode.JOINING if self.mode is Mode.RUNNING else self.mode
            return self._with(mode=mode), Advice.LOAD
        if reply.state is MemberState.JOINING:
            return self, Advice.ANNOUNCE
        if self.mode is Mode.RUNNING:
            return self, Advice.CONTINUE
        return self._resumed(reply.epoch), Advice.RESUME

    def _idle_advice(self) -> Advice:
        if self.mode is Mode.PARKED:
            return Advice.PARK
        return Advice.CONTINUE if self.mode is Mode.RUNNING else Advice.WAIT

    def _resumed(self, epoch: int) -> Self:
        return self._with(mode=Mode.RUNNING, epoch=epoch, over=epoch)

    def _address(self, envelope: Envelope) -> None:
        if envelope.job_uid != self.job_uid:
            raise _refused(Reason.OTHER_JOB, f"this member serves job {self.job_uid}; the command is of another")
        if envelope.target != self.name:
            raise _refused(Reason.OTHER_MEMBER, f"this is {self.name}; the command is for {envelope.target}")
        if self.mode in (Mode.OUT, Mode.PARKED):
            raise _refused(Reason.NOT_JOINED, f"this member is {self.mode}; it takes no commands")
        if envelope.incarnation != self.incarnation:
            raise _refused(
                Reason.STALE_INCARNATION, f"this is incarnation {self.incarnation}, not {envelope.incarnation}"
            )
        if envelope.epoch < self.epoch:
            raise _refused(Reason.STALE_EPOCH, f"epoch {self.epoch} is known; the command is of {envelope.epoch}")

    def _paused(self, envelope: Envelope) -> None:
        self._address(envelope)
        if self.mode is not Mode.PAUSED:
            raise _refused(Reason.NOT_PAUSED, f"this member is {self.mode}; pause it first")

    def _with(self, **changes: object) -> Self:
        return msgspec.structs.replace(self, **changes)


def _refused(reason: Reason, message: str) -> RefusedError:
    return RefusedError(409, reason.value, message)
