"""The words with which receivers refuse: one place, so that senders can tell a refusal they lost by from one to try again after.

Owns the CamelCase reasons of the sync protocol's 4xx and 5xx answers. Does not own when they are given (`member.py`, `arbiter.py`,
the ledger).
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a sync message was refused."""

    # by members
    OTHER_JOB = "OtherJob"
    OTHER_MEMBER = "OtherMember"
    STALE_INCARNATION = "StaleIncarnation"
    STALE_EPOCH = "StaleEpoch"
    STALE_VERSION = "StaleVersion"
    NOT_JOINED = "NotJoined"
    NOT_PAUSED = "NotPaused"
    WEIGHTS_REJECTED = "WeightsRejected"
    CANARY_FAILED = "CanaryFailed"

    # by the learner
    EPOCH_TAKEN = "EpochTaken"
    NOT_WANTED = "NotWanted"
    FINISHED = "Finished"
    NOT_READY = "NotReady"
    NOT_SEALED = "NotSealed"
    NOT_STEPPED = "NotStepped"
    WRONG_VERSION = "WrongVersion"
    MEMBERS_MISSING = "MembersMissing"
    MANIFEST_MISSING = "ManifestMissing"
    MANIFEST_INCOMPLETE = "ManifestIncomplete"


BAD_WEIGHTS = frozenset({Reason.WEIGHTS_REJECTED.value, Reason.CANARY_FAILED.value})
"""A member that refuses a Load with one of these has the bytes and finds them wrong; when all do, the publication is bad."""
