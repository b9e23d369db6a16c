"""The programs of a job and how they are run: version sync, learner, rollout, old-logit workers, checkpoints.

Owns these fields. Does not own the objects made from them (`asyncppo_operator.plan`).
"""

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from asyncppo.api.base import ApiModel
from asyncppo.api.training import NonNegativeInt, Parameters, PositiveFloat, PositiveInt, Precision

QUANTITY_PATTERN = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|[kMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$"


def _quantity(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and len(value) <= 64 and re.fullmatch(QUANTITY_PATTERN, value, re.ASCII):
        return value
    raise PydanticCustomError("quantity", "not a quantity")


Quantity = Annotated[
    int | str,
    PlainValidator(_quantity),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": QUANTITY_PATTERN,
            "maxLength": 64,
            "minimum": 0,
        }
    ),
]
"""A Kubernetes quantity that is not negative: 2, "500m", "10Gi"."""


class Resources(ApiModel):
    """Compute resources of a role's container, as in a pod."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """What the scheduler reserves."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] = {}
    """What the container may use."""


class RoleSpec(ApiModel):
    """What every role has in common."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image; default: the one the operator was installed with."""
    resources: Resources = Resources()
    """Compute resources."""
    template: Parameters = {}
    """A PodTemplateSpec overlay, merged strategically over what the operator renders."""


class LearnerSpec(RoleSpec):
    """The program that trains."""

    storage: Quantity = "10Gi"
    """Size of the volume for ledger, weights and checkpoints."""
    storage_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Class of that volume; default: the cluster's default class."""
    retain_storage: bool = False
    """Keep the volume when the job is deleted, by `ttlSecondsAfterFinished` too; without it the trained model goes with the job."""
    adopt_storage: bool = False
    """Take over a volume claim of this job's name that is there already and nobody's, such as one that an earlier job of this name
    left by `retainStorage`, and go on with the run it holds. Without it the name counts as taken."""
    threads: NonNegativeInt = 0
    """CPU threads of one forward; 0 lets torch choose."""


class EngineType(StrEnum):
    """Inference engines."""

    TORCH = "Torch"
    VLLM = "VLLM"


class EngineSpec(ApiModel):
    """The inference engine of a rollout worker."""

    type: EngineType = EngineType.TORCH
    """Torch runs transformers with a KV cache and continuous batching; VLLM runs vLLM."""
    precision: Precision = Precision.FLOAT32
    """The engine's compute precision; what is published to it is cast to this."""
    tensor_parallel: PositiveInt = 1
    """GPUs one replica is split over (VLLM)."""
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 50)] = 1 << 28
    """Memory for the KV cache, in bytes."""
    threads: NonNegativeInt = 1
    """CPU threads of one forward; 0 lets torch choose."""
    options: Parameters | None = None
    """Further engine arguments of vLLM, passed as they are."""


class RolloutSpec(RoleSpec):
    """The programs that sample."""

    replicas: Annotated[int, Field(ge=0, le=1024)] = 2
    """Number of rollout workers."""
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 32
    """Episodes one worker runs at once."""
    engine: EngineSpec = EngineSpec()
    """The inference engine."""


class OldLogitSpec(RoleSpec):
    """The workers of the Dedicated strategy."""

    replicas: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of old-logit workers; at least 1 with Dedicated, else 0."""
    unavailable_after_seconds: PositiveFloat = 120.0
    """Silence of all workers after which exact values count as unavailable (oldLogits.onUnavailable). They count as available again
    once a worker has answered for a quarter of that time."""
    threads: NonNegativeInt = 1
    """CPU threads of one forward; 0 lets torch choose."""


class Transport(StrEnum):
    """How weights travel to the rollouts."""

    HTTP = "HTTP"
    NCCL = "NCCL"


class WeightSyncSpec(ApiModel):
    """The version-sync protocol's limits."""

    transport: Transport = Transport.HTTP
    """HTTP: each rollout pulls from the learner; ranged, hashed, resumable."""
    pause_timeout_seconds: PositiveFloat = 60.0
    """A rollout that has not acknowledged a pause by then is fenced."""
    load_timeout_seconds: PositiveFloat = 300.0
    """A rollout that has not loaded a version by then is fenced."""
    min_ready: NonNegativeInt = 1
    """Fewer live rollouts than this is Degraded: no sync begins."""


class CheckpointSpec(ApiModel):
    """Weights, optimizer and progress, to resume from."""

    every_updates: PositiveInt = 1
    """A checkpoint after every so many updates."""
    keep: PositiveInt = 2
    """Checkpoints kept; the newest are."""
