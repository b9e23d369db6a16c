"""AsyncPPOJob: the one resource. Owns the spec as a whole and the identity of the kind.

Does not own cross-field rules (`rules.py`), the CRD made from it (`crd.py`) nor status (`status.py`).
"""

from typing import Annotated, Literal

from pydantic import Field

from asyncppo.api.base import ApiModel
from asyncppo.api.correction import OldLogitsSpec, StalenessSpec
from asyncppo.api.roles import CheckpointSpec, LearnerSpec, OldLogitSpec, RolloutSpec, WeightSyncSpec
from asyncppo.api.training import (
    AlgorithmSpec,
    EnvironmentSpec,
    ModelSpec,
    NonNegativeInt,
    OptimizerSpec,
    Parameters,
    PositiveInt,
    RewardSpec,
    SamplingSpec,
)

GROUP = "asyncppo.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AsyncPPOJob"
PLURAL = "asyncppojobs"
SHORT_NAME = "appo"


class AsyncPPOJobSpec(ApiModel):
    """One asynchronous PPO training run."""

    model: ModelSpec
    """The policy to train."""
    environment: EnvironmentSpec
    """Where the agent acts and is rewarded."""
    reward: RewardSpec = RewardSpec()
    """Which rewards are taken."""
    sampling: SamplingSpec = SamplingSpec()
    """How tokens are sampled."""
    algorithm: AlgorithmSpec
    """The objective."""
    optimizer: OptimizerSpec = OptimizerSpec()
    """AdamW and the learner's compute."""
    old_logits: OldLogitsSpec
    """How old log-probabilities are obtained."""
    staleness: StalenessSpec = StalenessSpec()
    """The hard bound on staleness."""
    weight_sync: WeightSyncSpec = WeightSyncSpec()
    """The version-sync protocol's limits."""
    learner: LearnerSpec = LearnerSpec()
    """The program that trains."""
    rollout: RolloutSpec = RolloutSpec()
    """The programs that sample."""
    old_logit: OldLogitSpec = OldLogitSpec()
    """The workers of the Dedicated strategy."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When progress is saved."""
    seed: NonNegativeInt = 0
    """Seeds weights, tasks and sampling."""
    suspend: bool = False
    """True drains the job to zero pods without losing anything; false goes on."""
    active_deadline_seconds: PositiveInt | None = None
    """The job fails when it has run for longer."""
    backoff_limit: NonNegativeInt = 3
    """Restarts of failed roles before the job fails."""
    ttl_seconds_after_finished: NonNegativeInt | None = None
    """A finished job is deleted after this."""


class ObjectMeta(ApiModel):
    """The part of Kubernetes' metadata the programs read; the rest is kept but not looked at."""

    model_config = ApiModel.model_config | {
        "extra": "allow",
        "json_schema_extra": {"x-kubernetes-preserve-unknown-fields": True},
    }

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=52)]
    """The job's name: lower-case letters, digits and dashes, at most 52."""
    namespace: str = "default"
    """The job's namespace."""
    uid: str = ""
    """The cluster's identity of the job; the local runner makes one."""


class AsyncPPOJob(ApiModel):
    """A manifest."""

    api_version: Literal["asyncppo.io/v1alpha1"]
    """asyncppo.io/v1alpha1"""
    kind: Literal["AsyncPPOJob"]
    """AsyncPPOJob"""
    metadata: ObjectMeta
    """Name and identity."""
    spec: AsyncPPOJobSpec
    """What to train and how."""
    status: Parameters | None = None
    """Written by the operator; ignored here."""
