"""The status of an AsyncPPOJob: what `kubectl get appo` shows, and what the operator remembers of a job.

Owns the fields, so that the CRD carries every one of them. Does not own what is said in them (the operator does).
A status validates with `JobStatus.model_validate_json(text, strict=True)`; a field that is not here would be pruned by the API server.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from asyncppo.api.base import ApiModel
from asyncppo.api.correction import Strategy

_Counts = Annotated[dict[str, int], Field(max_length=4096)]


class Phase(StrEnum):
    """Where a job is. Complete and Failed are final."""

    INVALID = "Invalid"
    PENDING = "Pending"
    RUNNING = "Running"
    RECOVERING = "Recovering"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One condition, as in metav1."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """What the condition is about, in CamelCase."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = None
    """The generation of the spec that this is about."""
    last_transition_time: datetime
    """When the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one CamelCase word."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, for people, and what to do."""


class Versions(ApiModel):
    """Policy versions by role."""

    learner: int | None = None
    """The version the learner trains from."""
    oldest_rollout: int | None = None
    """The oldest version that a ready rollout samples with; -1: none is ready."""
    newest_rollout: int | None = None
    """The newest version that a ready rollout samples with; -1: none is ready."""
    skew: int | None = None
    """How many versions the slowest ready rollout is behind the learner."""
    members: int | None = None
    """Rollouts that take part in version syncs."""


class Progress(ApiModel):
    """How far the training is."""

    update: int | None = None
    """Updates done."""
    updates: int | None = None
    """Updates to do in all."""
    percent: float | None = None
    """Updates done, of 100."""
    eta_seconds: float | None = None
    """Seconds left, at the pace so far."""
    summary: str | None = None
    """Updates done and to do, as a column."""
    waiting_for: str | None = None
    """What the learner does now: Batch, Straggler, Training, Sync, Nothing."""
    last_checkpoint: str | None = None
    """The last good checkpoint."""


class Rollouts(ApiModel):
    """The rollout workers."""

    desired: int | None = None
    """Workers that should be."""
    replicas: int | None = None
    """Workers that exist; the scale subresource's replicas."""
    ready: int | None = None
    """Workers that are ready."""
    summary: str | None = None
    """Ready and desired, as a column."""
    selector: str | None = None
    """Label selector of their pods; the scale subresource's selector."""


class StalenessFigures(ApiModel):
    """Staleness of trained tokens, in versions."""

    mean: float | None = None
    """Mean over the trained tokens."""
    max: int | None = None
    """Largest of any trained token."""
    bound: int | None = None
    """The bound that no token exceeds."""
    summary: str | None = None
    """Mean and largest, as a column."""


class OldLogitsFigures(ApiModel):
    """Exactness of the old log-probabilities."""

    exact: bool | None = None
    """Whether the strategy in use is exact."""
    exact_coverage: float | None = None
    """Fraction of sampled loss tokens whose old log-prob was verified to come from the version that sampled them."""
    violations: int | None = None
    """Old log-probs that were refused because version or weights did not match."""
    fallbacks: int | None = None
    """Tokens whose old log-prob fell back to Recompute."""
    summary: str | None = None
    """Whether the old log-probs are exact, as a column."""


class DiscrepancyFigures(ApiModel):
    """Between old and behavior log-probs of trained tokens."""

    k3: float | None = None
    """Mean of e^d - d - 1, with d = old - behavior."""
    max_abs: float | None = None
    """Largest |d|."""
    slope: float | None = None
    """Slope of the mean |d| against staleness; 0 when old log-probs are exact."""


class RewardFigures(ApiModel):
    """Mean reward of trajectories."""

    newest: float | None = None
    """In the newest update."""
    first: float | None = None
    """Over the first tenth of the updates."""
    last: float | None = None
    """Over the last tenth of the updates."""
    best: float | None = None
    """Over the best tenth of the updates."""


class LedgerFigures(ApiModel):
    """Trajectories by fate: leased = received + expired + returned + inFlight; received = trained + discarded + waiting."""

    balanced: bool | None = None
    """Whether the ledger's equations hold, those of the tokens included."""
    leased: int | None = None
    """Leases given out."""
    received: int | None = None
    """Trajectories received."""
    expired: int | None = None
    """Leases that ended without a sign of life."""
    returned: int | None = None
    """Leases given back."""
    in_flight: int | None = None
    """Leases under way."""
    trained: int | None = None
    """Trajectories trained."""
    waiting: int | None = None
    """Trajectories that wait to be trained."""
    discarded: int | None = None
    """Trajectories discarded; the reasons are in the metrics."""
    discarded_share: float | None = None
    """Share of the received trajectories that was discarded."""
    discarded_reason: str | None = None
    """The commonest reason of a discard."""


class SyncFigures(ApiModel):
    """Version syncs."""

    count: int | None = None
    """Syncs so far."""
    fenced: int | None = None
    """Rollouts fenced so far."""
    pause_seconds_p95: Annotated[float | None, Field(alias="pauseSecondsP95")] = None
    """Seconds until every rollout has paused, 95th percentile."""
    stall_seconds_p95: Annotated[float | None, Field(alias="stallSecondsP95")] = None
    """Seconds from pause to resume, 95th percentile."""


class ThroughputFigures(ApiModel):
    """Trained, over wall time."""

    tokens_per_second: float | None = None
    """Trained tokens in a second."""
    trajectories_per_second: float | None = None
    """Trained trajectories in a second."""


class FirstFailure(ApiModel):
    """The first failure of a role: the root cause of what follows from it."""

    role: str
    """learner, rollout or old-logit."""
    pod: str
    """The pod that failed."""
    reason: str
    """The container's reason, such as OOMKilled."""
    message: str
    """Its last words."""
    at: str
    """When."""


class JobStatus(ApiModel):
    """What the operator says of a job. Slow figures only; fast ones are metrics."""

    observed_generation: int | None = None
    """The generation of the spec that this status is about."""
    phase: Phase | None = None
    """Where the job is."""
    message: Annotated[str, Field(max_length=32768)] | None = None
    """What the job does, or what keeps it from going on."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """What holds and what does not, with reasons."""
    start_time: datetime | None = None
    """When the job began to run."""
    completion_time: datetime | None = None
    """When the job was over."""
    suspending_time: datetime | None = None
    """Since when the job has been draining, while it does."""
    strategy: Strategy | None = None
    """The old-logits strategy in use; with Auto, the one that was taken."""
    strategy_reason: Annotated[str, Field(max_length=4096)] | None = None
    """Why Auto took it; not there with any other strategy."""
    version: int | None = None
    """The newest published policy version."""
    versions: Versions | None = None
    """Policy versions by role."""
    progress: Progress | None = None
    """How far the training is."""
    rollouts: Rollouts | None = None
    """The rollout workers."""
    staleness: StalenessFigures | None = None
    """Staleness of trained tokens."""
    old_logits: OldLogitsFigures | None = None
    """Exactness of the old log-probs."""
    discrepancy: DiscrepancyFigures | None = None
    """Discrepancy between trainer and engine."""
    reward: RewardFigures | None = None
    """Mean reward."""
    ledger: LedgerFigures | None = None
    """Trajectories by fate."""
    syncs: SyncFigures | None = None
    """Version syncs."""
    notes: Annotated[list[str], Field(max_length=16)] | None = None
    """What one should know of this run and may not expect, such as a schedule that jumped."""
    throughput: ThroughputFigures | None = None
    """Training speed."""
    failures: _Counts | None = None
    """Failures by role; `backoffLimit` bounds their sum."""
    counted_restarts: _Counts | None = None
    """Restarts already counted as failures, by pod uid."""
    first_failure: FirstFailure | None = None
    """The first failure: the root cause."""
    storage_uid: str | None = None
    """Uid of the learner's volume claim, since it was made: a claim that is lost is never made anew in silence."""
