"""Work out, scores in: the messages between old-logit workers and the learner (strategy Dedicated).

Owns their shapes. Does not own the queue (`asyncppo_runtime.old_logprobs.queue`) nor what is believed of an answer: the learner
compares version, hash and values before anything is recorded.
"""

import msgspec

from asyncppo.wire.bounds import Address, Digest, Identity, Name, Number, Text, VersionNumber
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.versions import VersionRecord


class WorkerJoin(msgspec.Struct, frozen=True):
    """A worker appears, or comes back after a restart of either side. url: of its own port, for the log and the status."""

    job_uid: Identity
    name: Name
    url: Address


class WorkerJoined(msgspec.Struct, frozen=True):
    """The incarnation every further message carries; work of an earlier one has gone back into the queue."""

    incarnation: Number


class TakeWork(msgspec.Struct, frozen=True):
    """Ask for segments to score. loaded_version: what the worker holds, -1 for nothing. wait_seconds: how long to wait for work."""

    envelope: Envelope
    loaded_version: VersionNumber
    wait_seconds: float


class SegmentWork(msgspec.Struct, frozen=True):
    """Tokens [start, end) of the context token_ids ([end] at least), to be scored given all tokens before each."""

    lease_id: Number
    index: Number
    digest: Digest
    start: Number
    end: Number
    token_ids: list[Number]


class Work(msgspec.Struct, frozen=True):
    """Segments of one version, to be scored within lease_seconds; none when there is nothing to do.

    record: of the *train-side* weights (both hashes are the train hash, file_* are those of the file under `routes.TRAIN_WEIGHTS`).
    waiting: segments that wait in the learner's queue. finished: the job is over.
    """

    record: VersionRecord | None = None
    segments: list[SegmentWork] = []
    lease_seconds: float = 0.0
    waiting: Number = 0
    finished: bool = False


class SegmentScore(msgspec.Struct, frozen=True):
    """The old log-probs of one segment, end - start of them."""

    lease_id: Number
    index: Number
    digest: Digest
    logprobs: list[float]


class Scored(msgspec.Struct, frozen=True):
    """Scores made by the weights of `version` whose hash, computed from the parameters that made them, is `train_hash`."""

    envelope: Envelope
    version: VersionNumber
    train_hash: Digest
    scores: list[SegmentScore]


class GiveBackWork(msgspec.Struct, frozen=True):
    """The worker cannot do what it took: everything it holds goes back. message: why."""

    envelope: Envelope
    version: VersionNumber
    message: Text


class ScoredReply(msgspec.Struct, frozen=True):
    """Durable when this arrives. recorded: new. known: had been scored or discarded before (somebody was faster): no error."""

    recorded: Number
    known: Number
    refused: Number
