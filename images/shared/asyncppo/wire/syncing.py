"""The version-sync protocol on the wire: coordinator ↔ learner and coordinator ↔ members.

Owns the messages. Does not own the order they come in (`asyncppo.sync.machine`). Every call is idempotent: sent again with the
same epoch it answers the same.
"""

import msgspec

from asyncppo.wire.bounds import Digest, Identity, Name, Number, Text, VersionNumber
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import Member
from asyncppo.wire.versions import Canary, VersionRecord


class SyncView(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's durable answer to "where are we". The learner answers every sync call with it.

    epoch: the last epoch handed out. owner: coordinator that holds it. open: an epoch is begun and not finished.
    sealed: it is past its commit point. version: the version the members serve, which an open epoch ends. members: of an open epoch,
    frozen at begin and narrowed by fencing (a member that joined again is no longer in it); when none is open, who would be in the
    next one: everybody Ready or Draining now. wanted: the learner has a step (or a restore) waiting for a sync. stepped: the version
    to move to is published (so it may be before an epoch begins: a roll-back after the step, a restore).
    record, canary: of the newest published version. finished, failed: the job is over, and why if it failed.
    """

    job_uid: Identity
    column: Identity
    epoch: Number
    owner: Identity
    open: bool
    sealed: bool
    version: VersionNumber
    wanted: bool
    stepped: bool
    members: list[Member]
    record: VersionRecord | None
    canary: Canary | None
    finished: bool = False
    failed: str = ""


class Begin(msgspec.Struct, frozen=True):
    """Compare-and-set: take the epoch after `expected_epoch` for `coordinator`; 409 EpochTaken when another was faster.

    When epoch `expected_epoch` is open and unsealed it is rolled back; when it is sealed it is adopted: the new epoch starts sealed.
    """

    job_uid: Identity
    coordinator: Identity
    expected_epoch: Number


class SyncCall(msgspec.Struct, frozen=True):
    """Score, Step, Publish of epoch `epoch` by its owner. `manifests` matter to Score."""

    job_uid: Identity
    coordinator: Identity
    epoch: Number
    manifests: list[Manifest] = []


class Seal(msgspec.Struct, frozen=True):
    """The commit point of `epoch`: one transaction that ends `version`.

    Every member of the epoch (as frozen at begin, less those the learner has fenced since) is in `members` or in `fenced`. Names mean
    the incarnations frozen at begin: one that has joined since is not touched.
    """

    job_uid: Identity
    coordinator: Identity
    epoch: Number
    version: VersionNumber
    members: list[Name]
    manifests: list[Manifest]
    fenced: list[Name]


class Finish(msgspec.Struct, frozen=True):
    """The end of `epoch`, recorded before any member is told to resume.

    Sealed: every member left is on the target (`loaded`), the rest are fenced. Unsealed: the epoch is rolled back, its members go on
    under `version`, those in `fenced` are fenced (as in Seal); a target already published stays and waits for the next epoch. Phase
    seconds are for the record. bad_publication: not empty when every member refused the weights or failed the canary; the job stops
    for it.
    """

    job_uid: Identity
    coordinator: Identity
    epoch: Number
    loaded: list[Name]
    fenced: list[Name]
    seconds: dict[str, float]
    bad_publication: Text = ""


class Pause(msgspec.Struct, frozen=True):
    """Stop generating at a token boundary; acknowledge after the last chunk is consumed. After `ttl_seconds` ask the learner."""

    envelope: Envelope
    ttl_seconds: float


class Paused(msgspec.Struct, frozen=True):
    """The acknowledgement; no token is sampled after it until Resume."""

    envelope: Envelope
    version: VersionNumber
    seconds: float


class Flush(msgspec.Struct, frozen=True):
    """Upload every unscored segment of `version`, partial trajectories included, then answer with the Manifest."""

    envelope: Envelope
    version: VersionNumber


class Load(msgspec.Struct, frozen=True):
    """Pull, verify and load `record`, drop all KV, pass the canary."""

    envelope: Envelope
    record: VersionRecord
    canary: Canary | None


class Loaded(msgspec.Struct, frozen=True):
    """The version is loaded and verified."""

    envelope: Envelope
    version: VersionNumber
    weights_hash: Digest
    seconds: float
    canary_error: float


class Resume(msgspec.Struct, frozen=True):
    """Go on generating, under `version`."""

    envelope: Envelope
    version: VersionNumber


class Resumed(msgspec.Struct, frozen=True):
    """Generating again."""

    envelope: Envelope
    version: VersionNumber


class Refused(msgspec.Struct, frozen=True):
    """The body of every 4xx and 5xx answer: a CamelCase reason and a message a human can act on."""

    reason: Identity
    message: str
