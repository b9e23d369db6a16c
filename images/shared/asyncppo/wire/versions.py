"""What names one set of weights. Owns the records; does not own the files (`asyncppo_runtime.weights`)."""

import msgspec

from asyncppo.wire.bounds import Digest, Number, Text, VersionNumber


class VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One published policy version; an integer never reused within a job.

    train_hash: hash of the train-side parameters under the learner's precision: what every exact scorer loads.
    published_hash: hash of what engines load (a cast of it). file_size, file_sha256: of the published file, for the pull.
    """

    version: VersionNumber
    parent: VersionNumber
    lineage: Number
    train_hash: Digest
    published_hash: Digest
    file_size: Number
    file_sha256: Digest
    reason: Text = "step"


class Canary(msgspec.Struct, frozen=True):
    """Fixed ids and the trainer's log-probs of ids[1:] under the published version; |engine - trainer| must stay within tolerance."""

    token_ids: list[int]
    logprobs: list[float]
    tolerance: float
