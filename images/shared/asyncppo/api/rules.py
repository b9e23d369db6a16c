"""The rules that no single field can say: one table, each row with its Python predicate and its CEL twin.

Owns what must be true across the fields of a spec. Does not own what is not built yet (`implemented.py`), nor what may change on a
job that exists (`changes.py`). A test holds the twins together: `tests/unit/api/test_rules.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asyncppo.api.correction import OnUnavailable, Scoring, Strategy
from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.labels import may_be_set, names_rule
from asyncppo.api.problems import Problem, shown
from asyncppo.api.roles import EngineType
from asyncppo.api.training import (
    Advantage,
    DiscrepancyControl,
    DiscrepancyWeight,
    EnvironmentType,
    Precision,
)

GROUPED = (Advantage.GRPO, Advantage.DR_GRPO, Advantage.RLOO)
WITHOUT_EFFECT_ON_ROLLOUT = (DiscrepancyControl.TOKEN_MASK, DiscrepancyControl.NONE)
"""Where the ratio is 1 everywhere, the default keeps every token at weight 1."""
NAMES_WANTED = (
    "and none of the operator's own (asyncppo.io/..., app.kubernetes.io/name, instance, managed-by, component)"
)
WEIGHTS = (DiscrepancyControl.TIS, DiscrepancyControl.ICE_POP)


@dataclass(frozen=True)
class Rule:
    """One rule.

    path: the field at fault, below `spec`. reads: all fields the rule looks at, below `spec`, the ones a message shows.
    holds: the predicate. message: what must be true and what to do. node: where the CEL rule is attached, below `spec`
    ("" is `spec` itself). cel: the same predicate, with `self` the object at `node`.
    """

    name: str
    path: str
    reads: tuple[str, ...]
    holds: Callable[[AsyncPPOJobSpec], bool]
    message: str
    remedy: str
    node: str
    cel: str


RULES: tuple[Rule, ...] = (
    Rule(
        name="OneModel",
        path="model",
        reads=("model.builtin", "model.pretrained"),
        holds=lambda spec: (spec.model.builtin is None) != (spec.model.pretrained is None),
        message="exactly one of builtin and pretrained must be set",
        remedy="keep the one to train",
        node="model",
        cel="has(self.builtin) != has(self.pretrained)",
    ),
    Rule(
        name="EvenHeads",
        path="model.builtin.hiddenSize",
        reads=("model.builtin.hiddenSize", "model.builtin.heads"),
        holds=lambda spec: (
            spec.model.builtin is None or spec.model.builtin.hidden_size % (2 * spec.model.builtin.heads) == 0
        ),
        message="hiddenSize must be a multiple of 2 x heads, since rotary embeddings turn pairs",
        remedy="change hiddenSize or heads",
        node="model.builtin",
        cel="self.hiddenSize % (2 * self.heads) == 0",
    ),
    Rule(
        name="CustomEntrypoint",
        path="environment.entrypoint",
        reads=("environment.type", "environment.entrypoint"),
        holds=lambda spec: (
            (spec.environment.type is EnvironmentType.CUSTOM) == (spec.environment.entrypoint is not None)
        ),
        message="type Custom needs an entrypoint, and no other type takes one",
        remedy='set entrypoint to "module:Class" with type Custom, or remove it',
        node="environment",
        cel="(self.type == 'Custom') == has(self.entrypoint)",
    ),
    Rule(
        name="RoomForATurn",
        path="sampling.maxTokens",
        reads=("sampling.maxTokens", "sampling.contextLength"),
        holds=lambda spec: spec.sampling.max_tokens < spec.sampling.context_length,
        message="maxTokens must be less than contextLength, which holds the prompt too",
        remedy="lower maxTokens or raise contextLength",
        node="sampling",
        cel="self.maxTokens < self.contextLength",
    ),
    Rule(
        name="GroupsToCompare",
        path="algorithm.groupSize",
        reads=("algorithm.groupSize", "algorithm.advantage"),
        holds=lambda spec: spec.algorithm.group_size >= 2 or spec.algorithm.advantage not in GROUPED,
        message="GRPO, DrGRPO and RLOO compare the members of a group: groupSize must be at least 2",
        remedy="raise groupSize, or choose advantage REINFORCEPlusPlus or GAE",
        node="algorithm",
        cel="self.groupSize >= 2 || !(self.advantage in ['GRPO', 'DrGRPO', 'RLOO'])",
    ),
    Rule(
        name="CriticOfGAE",
        path="algorithm.critic",
        reads=("algorithm.advantage", "algorithm.critic"),
        holds=lambda spec: (spec.algorithm.advantage is Advantage.GAE) == (spec.algorithm.critic is not None),
        message="advantage GAE needs a critic, and no other advantage takes one",
        remedy="write `critic: {}` with GAE, or remove it",
        node="algorithm",
        cel="(self.advantage == 'GAE') == has(self.critic)",
    ),
    Rule(
        name="DualClipAboveOne",
        path="algorithm.dualClip",
        reads=("algorithm.dualClip",),
        holds=lambda spec: spec.algorithm.dual_clip is None or spec.algorithm.dual_clip > 1,
        message="dualClip must be above 1, or 0 to turn it off",
        remedy="choose a value such as 3, or 0",
        node="algorithm",
        cel="self.dualClip == 0.0 || self.dualClip > 1.0",
    ),
    Rule(
        name="CapAboveMask",
        path="algorithm.discrepancy.cap",
        reads=(
            "algorithm.discrepancy.control",
            "algorithm.discrepancy.weight",
            "algorithm.discrepancy.bound",
            "algorithm.discrepancy.cap",
        ),
        holds=lambda spec: (
            spec.algorithm.discrepancy.control is not DiscrepancyControl.TOKEN_MASK
            or spec.algorithm.discrepancy.weight is not DiscrepancyWeight.IMPORTANCE
            or spec.algorithm.discrepancy.cap >= spec.algorithm.discrepancy.bound
        ),
        message="cap is below bound: the weights of tokens that the mask keeps would be cut without a word",
        remedy="raise cap to at least bound, or choose control TIS, which only cuts",
        node="algorithm.discrepancy",
        cel="self.control != 'TokenMask' || self.weight != 'Importance' || self.cap >= self.bound",
    ),
    Rule(
        name="WeightOfControl",
        path="algorithm.discrepancy.weight",
        reads=("algorithm.discrepancy.control", "algorithm.discrepancy.weight"),
        holds=lambda spec: (
            spec.algorithm.discrepancy.weight is DiscrepancyWeight.IMPORTANCE
            or spec.algorithm.discrepancy.control not in WEIGHTS
        ),
        message="controls TIS and IcePop weight a token by its ratio; weight MaskOnly would take that away",
        remedy="choose weight Importance, or another control",
        node="algorithm.discrepancy",
        cel="self.weight == 'Importance' || !(self.control in ['TIS', 'IcePop'])",
    ),
    Rule(
        name="RatioOfRollout",
        path="algorithm.discrepancy.control",
        reads=("oldLogits.strategy", "algorithm.discrepancy.control"),
        holds=lambda spec: (
            spec.old_logits.strategy is not Strategy.ROLLOUT
            or spec.algorithm.discrepancy.control in WITHOUT_EFFECT_ON_ROLLOUT
        ),
        message="strategy Rollout takes the engine's log-probs as old ones: the clipped ratio already holds the whole discrepancy, "
        "so this control would count it twice",
        remedy="set control: None, or choose another strategy",
        node="",
        cel="self.oldLogits.strategy != 'Rollout' || self.algorithm.discrepancy.control in ['TokenMask', 'None']",
    ),
    Rule(
        name="WarmupWithinUpdates",
        path="optimizer.warmupUpdates",
        reads=("optimizer.warmupUpdates", "algorithm.updates"),
        holds=lambda spec: spec.optimizer.warmup_updates <= spec.algorithm.updates,
        message="the warm-up is longer than the training: warmupUpdates must not exceed algorithm.updates",
        remedy="lower warmupUpdates or raise updates",
        node="",
        cel="self.optimizer.warmupUpdates <= self.algorithm.updates",
    ),
    Rule(
        name="OverlappedInterruption",
        path="oldLogits.scoring",
        reads=("oldLogits.strategy", "oldLogits.scoring"),
        holds=lambda spec: (
            spec.old_logits.scoring is Scoring.BARRIER or spec.old_logits.strategy is Strategy.INTERRUPTION
        ),
        message="scoring Overlapped is a mode of strategy Interruption",
        remedy="remove scoring, or choose strategy Interruption",
        node="oldLogits",
        cel="self.scoring == 'Barrier' || self.strategy == 'Interruption'",
    ),
    Rule(
        name="FallbackFromExact",
        path="oldLogits.onUnavailable",
        reads=("oldLogits.strategy", "oldLogits.onUnavailable"),
        holds=lambda spec: (
            spec.old_logits.on_unavailable is not OnUnavailable.FALLBACK or spec.old_logits.strategy.exact
        ),
        message="only an exact strategy (Interruption, Snapshot, Dedicated) can fall back to Recompute",
        remedy="remove onUnavailable, or choose an exact strategy",
        node="oldLogits",
        cel="self.onUnavailable != 'Fallback' || self.strategy in ['Interruption', 'Snapshot', 'Dedicated', 'Auto']",
    ),
    Rule(
        name="RetentionCoversStaleness",
        path="oldLogits.snapshot.retention",
        reads=("oldLogits.snapshot.retention", "staleness.maxVersions"),
        holds=lambda spec: (
            spec.old_logits.snapshot.retention is None
            or spec.old_logits.snapshot.retention >= spec.staleness.max_versions + 1
        ),
        message="a version would be dropped while its tokens still wait: retention must be at least staleness.maxVersions + 1",
        remedy="raise retention, remove it, or lower maxVersions",
        node="",
        cel="!has(self.oldLogits.snapshot.retention) || self.oldLogits.snapshot.retention >= self.staleness.maxVersions + 1",
    ),
    Rule(
        name="DedicatedWorkers",
        path="oldLogit.replicas",
        reads=("oldLogits.strategy", "oldLogit.replicas"),
        holds=lambda spec: (
            spec.old_logits.strategy is Strategy.AUTO
            or (spec.old_logits.strategy is Strategy.DEDICATED) == (spec.old_logit.replicas >= 1)
        ),
        message="strategy Dedicated needs at least one old-logit worker, Auto may offer some, and every other strategy has none",
        remedy="set oldLogit.replicas to 1 or more with Dedicated, else to 0",
        node="",
        cel="self.oldLogits.strategy == 'Auto' || (self.oldLogits.strategy == 'Dedicated') == (self.oldLogit.replicas >= 1)",
    ),
    Rule(
        name="TensorParallelVLLM",
        path="rollout.engine.tensorParallel",
        reads=("rollout.engine.type", "rollout.engine.tensorParallel"),
        holds=lambda spec: spec.rollout.engine.tensor_parallel == 1 or spec.rollout.engine.type is EngineType.VLLM,
        message="only engine VLLM splits one replica over several GPUs",
        remedy="set tensorParallel to 1, or choose type VLLM",
        node="rollout.engine",
        cel="self.tensorParallel == 1 || self.type == 'VLLM'",
    ),
    Rule(
        name="OptionsOfVLLM",
        path="rollout.engine.options",
        reads=("rollout.engine.type", "rollout.engine.options"),
        holds=lambda spec: spec.rollout.engine.options is None or spec.rollout.engine.type is EngineType.VLLM,
        message="options are arguments of vLLM; engine Torch has none",
        remedy="remove options, or choose type VLLM",
        node="rollout.engine",
        cel="!has(self.options) || self.type == 'VLLM'",
    ),
    Rule(
        name="PrecisionOfVLLM",
        path="rollout.engine.precision",
        reads=("rollout.engine.type", "rollout.engine.precision"),
        holds=lambda spec: (
            spec.rollout.engine.precision is not Precision.FLOAT64 or spec.rollout.engine.type is EngineType.TORCH
        ),
        message="vLLM does not compute in Float64",
        remedy="choose Float32 or BFloat16, or type Torch",
        node="rollout.engine",
        cel="self.precision != 'Float64' || self.type == 'Torch'",
    ),
    Rule(
        name="LabelNames",
        path="labels",
        reads=("labels",),
        holds=lambda spec: may_be_set(spec.labels),
        message=f"each name must be one of a Kubernetes label, {NAMES_WANTED}",
        remedy="write names such as team or example.org/team",
        node="labels",
        cel=names_rule(),
    ),
    Rule(
        name="AnnotationNames",
        path="annotations",
        reads=("annotations",),
        holds=lambda spec: may_be_set(spec.annotations),
        message=f"each name must be one of a Kubernetes annotation, {NAMES_WANTED}",
        remedy="write names such as team or example.org/team",
        node="annotations",
        cel=names_rule(),
    ),
)


def lookup(spec: AsyncPPOJobSpec, path: str) -> object:
    """The value at a dotted camelCase path below `spec` as JSON; None where a part of the path is not set."""
    value: object = spec.model_dump(mode="json", by_alias=True)
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value[name]
    return value


def broken_rules(spec: AsyncPPOJobSpec, doubtful: Sequence[str] = ()) -> list[Problem]:
    """Every rule that `spec` breaks. Rules that read a path in, above or below `doubtful` ones are left out: see `manifest.py`."""
    problems = []
    for rule in RULES:
        if any(_touch(read, doubt) for read in rule.reads for doubt in doubtful) or rule.holds(spec):
            continue
        found = ", ".join(f"{read.removeprefix(rule.node + '.')} {_value(lookup(spec, read))}" for read in rule.reads)
        problems.append(Problem(f"spec.{rule.path}", f"{rule.message} (found: {found})", rule.remedy))
    return problems


def _value(value: object) -> str:
    return "not set" if value is None else shown(value)


def _touch(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.") or other == ""
