"""Leases out, trajectories in: the messages between rollout workers and the experience service.

Owns their shapes. Does not own how they are kept (`asyncppo_runtime.ledger`).
"""

import hashlib
import struct
from typing import Annotated

import msgspec

from asyncppo.wire.bounds import Digest, Name, Number, Ordinal, Text, VersionNumber
from asyncppo.wire.envelope import Envelope

UPLOAD_BATCH = 128
"""Most trajectories, or leases, of one message."""
BYTES_PER_TOKEN = 16
"""Of an upload, at most: an id takes 5, a log-prob 9."""
BYTES_PER_TRAJECTORY = 1 << 16
"""Of an upload, at most, besides its tokens: spans, hashes, the words of an error."""


class Task(msgspec.Struct, frozen=True):
    """One thing to do: `index` counts the job's tasks from 0; `seed` (63 bits) is all an environment may draw randomness from."""

    index: Number
    seed: Number


class Lease(msgspec.Struct, frozen=True):
    """The right to produce one trajectory attempt for `task`. `ttl_seconds` runs from the last heartbeat."""

    lease_id: Number
    group_id: Number
    attempt: Number
    task: Task
    sampling_seed: Number
    ttl_seconds: float


class LeaseRequest(msgspec.Struct, frozen=True):
    """Ask for up to `count` leases."""

    envelope: Envelope
    count: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
    version: VersionNumber


class LeaseReply(msgspec.Struct, frozen=True):
    """Granted leases; when none, `reason` says why (AtCapacity, SyncActive, SyncStalled, StaleVersion, Finished)."""

    leases: list[Lease]
    reason: str = ""
    retry_after_seconds: float = 0.05


class Segment(msgspec.Struct, frozen=True):
    """Tokens [start, end) of a trajectory, sampled without interruption under one version.

    `weights_hash` is what the engine computed from the bytes it loaded. `logprobs` are the engine's at sampling time
    (behavior log-probs), one per token, under the distribution really sampled from.
    """

    index: Number
    start: Number
    end: Number
    version: VersionNumber
    weights_hash: Digest
    logprobs: list[float]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.end - self.start


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """What one lease has produced so far: exact token ids of the whole context and the segments the model sampled.

    Tokens outside every segment are the environment's (prompt included). `finished` is False for the partial form sent at a
    Flush; `reward` is then 0. `end_reason`: done, max_turns, overlong, environment_timeout, environment_error, or malformed for what
    stands in the place of a trajectory that cannot be sent or read (`unreadable`).
    """

    lease_id: Number
    group_id: Number
    token_ids: list[int]
    segments: list[Segment]
    finished: bool
    reward: float = 0.0
    end_reason: str = ""
    turns: Number = 0
    error: str = ""
    sampling_seconds: float = 0.0
    environment_seconds: float = 0.0
    paused_seconds: float = 0.0


MALFORMED_ENDING = "malformed"
MOST_ERROR_CHARACTERS = 500


def unreadable(lease_id: int, group_id: int, error: str) -> Trajectory:
    """Says that there is a finished trajectory of this lease which nobody can read: it is a loss of its place."""
    return Trajectory(
        lease_id=lease_id,
        group_id=group_id,
        token_ids=[],
        segments=[],
        finished=True,
        end_reason=MALFORMED_ENDING,
        error=error[:MOST_ERROR_CHARACTERS].encode("utf-8", "backslashreplace").decode(),
    )


class Upload(msgspec.Struct, frozen=True):
    """Finished trajectories, or (at a Flush) partial ones."""

    envelope: Envelope
    trajectories: Annotated[list[Trajectory], msgspec.Meta(max_length=UPLOAD_BATCH)]


class RawUpload(msgspec.Struct, frozen=True):
    """An Upload as it comes in: its trajectories are read one by one, so that one that is none does not spoil the others."""

    envelope: Envelope
    trajectories: list[msgspec.Raw]


class _Named(msgspec.Struct, frozen=True):
    """The least that says whose loss it is."""

    lease_id: int
    group_id: int


_TRAJECTORY = msgspec.msgpack.Decoder(Trajectory)
_NAMED = msgspec.msgpack.Decoder(_Named)


def read_trajectories(upload: RawUpload) -> list[Trajectory]:
    """The trajectories of `upload`; `unreadable` stands for one that is none. Raises msgspec.DecodeError where not even the lease can
    be read: the sender then singles it out."""
    read = []
    for raw in upload.trajectories:
        try:
            read.append(_TRAJECTORY.decode(raw))
        except msgspec.DecodeError as error:
            named = _NAMED.decode(raw)
            read.append(unreadable(named.lease_id, named.group_id, f"it cannot be read: {error}"))
    return read


class Refusal(msgspec.Struct, frozen=True):
    """Why a lease's upload or one of its segments (`index` >= 0) was not taken."""

    lease_id: Number
    index: Ordinal
    reason: Text


class UploadReply(msgspec.Struct, frozen=True):
    """Durable when this arrives: lease ids accepted, and what was refused (do not send it again)."""

    accepted: list[Number]
    refused: list[Refusal]


class GiveBack(msgspec.Struct, frozen=True):
    """Return leases unproduced: a drain or a clean stop."""

    envelope: Envelope
    lease_ids: list[Number]


class ManifestEntry(msgspec.Struct, frozen=True):
    """One segment a rollout holds and has not yet seen recorded as scored."""

    lease_id: Number
    index: Number
    tokens: Number
    digest: Digest


class Manifest(msgspec.Struct, frozen=True):
    """Every segment of `version` that `member` holds unscored: a set, compared as a set."""

    member: Name
    incarnation: Number
    version: VersionNumber
    entries: list[ManifestEntry]


def segment_digest(token_ids: list[int], segment: Segment) -> str:
    """Hash of what a score depends on: the prefix and own ids up to `end`, the span, the version tag, the weights hash, the log-probs.

    16 hex digits of SHA-256 over a fixed little-endian layout (int64 ids, float64 log-probs).
    """
    h = hashlib.sha256()
    h.update(struct.pack("<qqqq", segment.index, segment.start, segment.end, segment.version))
    h.update(segment.weights_hash.encode())
    h.update(struct.pack(f"<{segment.end}q", *token_ids[: segment.end]))
    h.update(struct.pack(f"<{len(segment.logprobs)}d", *segment.logprobs))
    return h.hexdigest()[:16]
