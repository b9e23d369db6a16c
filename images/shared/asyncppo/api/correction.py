"""How old log-probabilities are obtained, and how stale data may be.

Owns these fields. Does not own what the strategies do (`asyncppo_runtime.old_logprobs`) nor the protocol (`asyncppo.sync`).
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from asyncppo.api.base import ApiModel
from asyncppo.api.training import PositiveFloat


class Strategy(StrEnum):
    """Where the old log-probabilities come from. The first three are exact; Auto takes one of them when the job is accepted."""

    INTERRUPTION = "Interruption"
    SNAPSHOT = "Snapshot"
    DEDICATED = "Dedicated"
    EWMA = "EWMA"
    LOG_LINEAR = "LogLinear"
    LINEAR = "Linear"
    RECOMPUTE = "Recompute"
    ROLLOUT = "Rollout"
    AUTO = "Auto"

    @property
    def exact(self) -> bool:
        """Whether every old log-probability is that of the version that sampled the token."""
        return self in (Strategy.INTERRUPTION, Strategy.SNAPSHOT, Strategy.DEDICATED, Strategy.AUTO)


class Scoring(StrEnum):
    """When the Interruption strategy scores."""

    BARRIER = "Barrier"
    OVERLAPPED = "Overlapped"


class OnUnavailable(StrEnum):
    """What happens when an exact value cannot be had."""

    FAIL = "Fail"
    DISCARD = "Discard"
    FALLBACK = "Fallback"


class SnapshotMedium(StrEnum):
    """Where live versions are kept."""

    MEMORY = "Memory"
    DISK = "Disk"


class SnapshotSpec(ApiModel):
    """The Snapshot strategy's ring of versions."""

    medium: SnapshotMedium = SnapshotMedium.DISK
    """Memory keeps the tensors in RAM; Disk reads them from the weight store."""
    retention: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Versions kept; default and least value: staleness.maxVersions + 1."""


class EwmaSpec(ApiModel):
    """The EWMA strategy's anchor."""

    decay: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Fixed decay; default W/(W+2) with W = staleness.maxVersions."""
    reset_below: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    """Reset the anchor when the active fraction of tokens falls below this."""


class OldLogitsSpec(ApiModel):
    """How the train-side log-probabilities of the sampling version are obtained. The strategy is chosen, never a default."""

    strategy: Strategy
    """Interruption, Snapshot and Dedicated are exact; EWMA, LogLinear, Linear, Recompute and Rollout are not and say so. Auto takes the
    exact one with the least estimated cost, once, and says which and why."""
    scoring: Scoring = Scoring.BARRIER
    """Interruption only. Barrier scores while rollouts are paused; Overlapped beside them on one frozen copy."""
    on_unavailable: OnUnavailable = OnUnavailable.FAIL
    """Fail stops the job, Discard drops the tokens and counts them, Fallback uses Recompute for them and says so."""
    segment_bound: PositiveFloat | None = None
    """How far old and behavior log-probs of a segment may lie apart, in nats, before it is taken for mislabelled: the bound on the mean of
    |old - behavior| without its largest quarter, so that single outliers do not count; a segment of n tokens is allowed 1 + 99/n times
    as much. Default: 0.001 when engine and learner both compute in Float32 or Float64, else 0.1."""
    audit_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Fraction of trajectories that are scored exactly as well, in any mode, to measure the proxy's errors."""
    snapshot: SnapshotSpec = SnapshotSpec()
    """Settings of the Snapshot strategy."""
    ewma: EwmaSpec = EwmaSpec()
    """Settings of the EWMA strategy."""


class StalenessAction(StrEnum):
    """What the learner does about a trajectory that would exceed the bound."""

    WAIT = "Wait"
    DISCARD = "Discard"


class StalenessSpec(ApiModel):
    """The hard bound on staleness: of every token, queue time included."""

    max_versions: Annotated[int, Field(ge=0, le=1000)] = 2
    """No token older than this many versions is trained on. 0 is synchronous training."""
    action: StalenessAction = StalenessAction.WAIT
    """Wait: before a step that would make an open trajectory too old, wait for it. Discard: drop its group as `stale`."""
