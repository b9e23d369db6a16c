"""Joining, heartbeats, leaving: how a rollout becomes and stays a member.

Owns these messages. Does not own membership itself (the learner's ledger does).
"""

from enum import StrEnum

import msgspec

from asyncppo.wire.bounds import Address, Digest, Identity, Name, Number, VersionNumber
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.versions import VersionRecord


class MemberState(StrEnum):
    """What the learner holds a member to be.

    JOINING: has an incarnation, has not loaded yet. READY: verified on a version, counted in syncs, may lease.
    DRAINING: gives its leases back and leaves at an epoch boundary. FENCED: nothing from this incarnation is accepted.
    LEFT: gone in good order.
    """

    JOINING = "Joining"
    READY = "Ready"
    DRAINING = "Draining"
    FENCED = "Fenced"
    LEFT = "Left"


class Member(msgspec.Struct, frozen=True):
    """One member as the ledger knows it. `version` is -1 until it is ready."""

    name: Name
    incarnation: Number
    url: Address
    state: MemberState
    version: VersionNumber = -1


class Join(msgspec.Struct, frozen=True):
    """A rollout asks to be a member; `url` is where its control port will listen."""

    job_uid: Identity
    name: Name
    url: Address


class Joined(msgspec.Struct, frozen=True):
    """The answer: who you are now and what to load. `record` is None while a sync runs: ask again (heartbeat) until it is there."""

    incarnation: Number
    epoch: Number
    record: VersionRecord | None


class Ready(msgspec.Struct, frozen=True):
    """Weights are loaded and the canary passed."""

    envelope: Envelope
    version: VersionNumber
    weights_hash: Digest


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Every second or so: renews leases, tells load. Token counters are totals since the worker's start.

    pause_expired: the member's pause has outlived its time to live, so nobody drives the epoch in `envelope` any more. The learner
    closes that epoch before it answers: unsealed, it is rolled back; sealed and published, it is finished with every member of it
    (who load the version by themselves); sealed and not published, it waits for a coordinator.
    """

    envelope: Envelope
    version: VersionNumber
    lease_ids: list[Number]
    paused: bool = False
    pause_expired: bool = False
    sampled_tokens: Number = 0
    running: Number = 0
    outbox: Number = 0


class HeartbeatReply(msgspec.Struct, frozen=True):
    """What the learner holds now.

    fenced: this incarnation is dead, join again. finished: the job is over; park. `record` is the version a member outside a
    sync must be on (None while a sync runs: stay paused). `sealed_version`: no token of a version <= it can be accepted any
    more unless its segment is already recorded.
    """

    state: MemberState
    epoch: Number
    syncing: bool
    sealed_version: VersionNumber
    record: VersionRecord | None
    finished: bool = False
    lost_leases: list[Number] = []


class Leave(msgspec.Struct, frozen=True):
    """A drained member says good-bye: its leases are given back and its outbox is empty."""

    envelope: Envelope
