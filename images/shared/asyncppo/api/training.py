"""What is trained, on what, and by which objective: model, environment, reward, sampling, algorithm, optimizer.

Owns these fields, their defaults and their bounds. Does not own rules across them (`rules.py`).
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from asyncppo.api.base import ApiModel

PositiveInt = Annotated[int, Field(ge=1, le=2**31 - 1)]
NonNegativeInt = Annotated[int, Field(ge=0, le=2**31 - 1)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]


def _zero_is_off(value: Any) -> Any:
    return None if value == 0 and not isinstance(value, bool) else value


Switchable = Annotated[
    Annotated[float, Field(ge=0.0)] | None,
    BeforeValidator(_zero_is_off),
    PlainSerializer(lambda value: 0.0 if value is None else value, return_type=float),
    WithJsonSchema({"type": "number", "minimum": 0.0}),
]
"""A number that 0 turns off; None in Python. Not null in manifests: API servers put the default where they find a null."""

Parameters = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class BuiltinModel(ApiModel):
    """A tiny Llama-shaped transformer made on the spot from the job's seed, with a symbol tokenizer of the environment."""

    hidden_size: Annotated[int, Field(ge=8, le=4096)] = 64
    """Width of the residual stream; a multiple of 2 x `heads`, since rotary embeddings turn pairs."""
    layers: Annotated[int, Field(ge=1, le=64)] = 2
    """Number of transformer blocks."""
    heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Number of attention heads."""
    intermediate_size: Annotated[int, Field(ge=8, le=16384)] = 256
    """Width of the MLP."""


class ModelSpec(ApiModel):
    """The policy: exactly one of `builtin` and `pretrained`."""

    builtin: BuiltinModel | None = None
    """Make a tiny transformer with random weights."""
    pretrained: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """A folder (absolute, or relative to the manifest), or a Hugging Face model id."""


class EnvironmentType(StrEnum):
    """The environments that ship, and the door for your own."""

    GUESS_NUMBER = "GuessNumber"
    REASONING_GYM = "ReasoningGym"
    CUSTOM = "Custom"


class EnvironmentSpec(ApiModel):
    """Where the agent acts and is rewarded."""

    type: EnvironmentType
    """GuessNumber, ReasoningGym (the package of that name), or Custom with `entrypoint`."""
    entrypoint: (
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$", max_length=256)] | None
    ) = None
    """`module:Class` of a Custom environment."""
    parameters: Parameters = {}
    """Handed to the environment as it is."""
    max_turns: PositiveInt = 16
    """An episode that reaches this many model turns is ended."""
    step_timeout_seconds: PositiveFloat = 60.0
    """A reset or step that takes longer ends the episode; its trajectory is discarded as `environment_timeout`."""
    fail_after: PositiveInt = 64
    """The job fails when so many trajectories in a row, over all rollouts, were worth nothing (an error, a time-out, a reward out of
    bounds, nothing sampled), and at least twice as many as are under way."""


class RewardSpec(ApiModel):
    """Which rewards are taken."""

    bound: Annotated[float, Field(gt=0.0, le=1e9)] = 1e6
    """Largest size of one reward and of an episode's sum; beyond it the trajectory is discarded as `environment_error`."""


class Overlong(StrEnum):
    """What happens to an episode whose context is full."""

    TRUNCATE = "Truncate"
    DISCARD = "Discard"


class SamplingSpec(ApiModel):
    """How tokens are sampled. Log-probabilities are always those of the distribution really sampled from."""

    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """Divides the logits, in the engine and in the trainer alike."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling: the smallest set of tokens whose probabilities reach this; 1 samples from all."""
    max_tokens: PositiveInt = 16
    """Most tokens the model may say in one turn."""
    context_length: PositiveInt = 256
    """Most tokens of a whole trajectory."""
    overlong: Overlong = Overlong.TRUNCATE
    """Truncate: the episode ends there with the reward it has. Discard: the trajectory is discarded as `overlong`."""


class Advantage(StrEnum):
    """Advantage estimators, by the field's names."""

    GRPO = "GRPO"
    DR_GRPO = "DrGRPO"
    RLOO = "RLOO"
    REINFORCE_PLUS_PLUS = "REINFORCEPlusPlus"
    GAE = "GAE"


class Loss(StrEnum):
    """Policy losses, by the field's names."""

    PPO = "PPO"
    CISPO = "CISPO"
    GSPO = "GSPO"
    DOUBLE_SIDED = "DoubleSided"


class Normalization(StrEnum):
    """What the summed loss is divided by."""

    TOKEN_MEAN = "TokenMean"
    SEQUENCE_MEAN = "SequenceMean"


class DiscrepancyControl(StrEnum):
    """What is done about the training-inference discrepancy ratio."""

    TOKEN_MASK = "TokenMask"
    TIS = "TIS"
    ICE_POP = "IcePop"
    SEQUENCE_MASK = "SequenceMask"
    GEOMETRIC_MASK = "GeometricMask"
    VETO = "Veto"
    NONE = "None"


class DiscrepancyWeight(StrEnum):
    """How a token inside the mask is weighted."""

    IMPORTANCE = "Importance"
    MASK_ONLY = "MaskOnly"


class DiscrepancySpec(ApiModel):
    """Control of the discrepancy ratio r_d = old / behavior."""

    control: DiscrepancyControl = DiscrepancyControl.TOKEN_MASK
    """TokenMask keeps a token iff 1/bound <= r_d <= bound; SequenceMask and GeometricMask do so with the product and the geometric mean
    of a sequence; Veto drops a sequence with any token outside; IcePop keeps 1/bound <= r_d <= cap; TIS and None keep all."""
    bound: Annotated[float, Field(ge=1.0)] = 1.25
    """The bound of the mask; inclusive."""
    weight: DiscrepancyWeight = DiscrepancyWeight.IMPORTANCE
    """Importance multiplies a kept token by min(r_d, cap) (IcePop: by r_d); MaskOnly by 1. Control None has weight 1."""
    cap: Annotated[float, Field(ge=1.0)] = 2.0
    """Upper cap of the importance weight; with TokenMask at least `bound`."""


class CriticSpec(ApiModel):
    """The value function of GAE: one linear head on the policy's last hidden state, trained beside it."""

    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Discount per token."""
    gae_lambda: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """GAE's trace decay: 0 trusts the critic alone, 1 the return alone."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of the value head."""
    value_coefficient: PositiveFloat = 0.5
    """Weight of the value loss."""
    value_clip: PositiveFloat | None = None
    """Largest change of a value from the one at batch time that still lowers the loss; not set: no clip."""


class AlgorithmSpec(ApiModel):
    """The objective: decoupled PPO, the staleness ratio clipped and the discrepancy ratio masked."""

    updates: PositiveInt
    """Number of policy versions to train: optimizer steps."""
    group_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """Trajectories per task (one group)."""
    batch_groups: Annotated[int, Field(ge=1, le=65536)] = 16
    """Groups per optimizer step."""
    advantage: Advantage = Advantage.GRPO
    """How a trajectory's reward becomes an advantage."""
    critic: CriticSpec | None = None
    """The critic of GAE, which needs one; no other estimator takes one."""
    loss: Loss = Loss.PPO
    """The policy loss."""
    normalization: Normalization = Normalization.TOKEN_MEAN
    """TokenMean divides by all loss tokens of the batch, counted before any mask."""
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Lower clip of the staleness ratio: 1 - clipLow."""
    clip_high: PositiveFloat = 0.2
    """Upper clip of the staleness ratio: 1 + clipHigh."""
    dual_clip: Switchable = 3.0
    """Bounds the surrogate of negative advantages at dualClip x advantage, above 1; 0 turns it off (PPO and GSPO)."""
    discrepancy: DiscrepancySpec = DiscrepancySpec()
    """Control of the discrepancy ratio."""
    entropy_coefficient: NonNegativeFloat = 0.0
    """Weight of the entropy bonus."""
    kl_coefficient: NonNegativeFloat = 0.0
    """Weight of the KL penalty (k3) against the initial policy."""


class Schedule(StrEnum):
    """Learning-rate schedules."""

    CONSTANT = "Constant"
    LINEAR = "Linear"
    COSINE = "Cosine"


class Precision(StrEnum):
    """Compute precisions."""

    FLOAT64 = "Float64"
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"


class OptimizerSpec(ApiModel):
    """AdamW and the learner's compute."""

    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    schedule: Schedule = Schedule.CONSTANT
    """Linear and Cosine decay to zero over `algorithm.updates`."""
    warmup_updates: NonNegativeInt = 0
    """Updates of linear warm-up."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW weight decay."""
    gradient_clip: PositiveFloat = 1.0
    """Largest global gradient norm."""
    micro_batch_tokens: PositiveInt = 16384
    """Token budget (padding included) of one forward; a batch is split into as many as it needs."""
    precision: Precision = Precision.FLOAT32
    """The learner's compute precision; part of what a policy version is."""
