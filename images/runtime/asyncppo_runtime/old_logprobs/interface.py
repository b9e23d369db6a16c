"""What every strategy answers, and the base that answers it for the simple ones.

Owns the words between the trainer and a strategy. Does not own any strategy, nor when the trainer calls.

The trainer is the same for all strategies:

    strategy.start(version, tensors)                       once, with the first resident version
    for each step:
        batch = strategy.prepare(batch, model, forward)    exact: fills nothing or what is still unscored; EWMA: one forward of its anchor
        for each micro-batch:
            anchor = strategy.proximal(micro.batch, policy_logprobs)
            ... correct, policy_loss, backward, loss_sums ...
        strategy.before_step(tensors, unscored); optimizer.step(); strategy.after_step(tensors, sums)
        strategy.published(version, tensors, train_hash)   strategy.retired(version) once no token of it is alive
"""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from torch import Tensor, nn

from asyncppo.api.correction import OldLogitsSpec, StalenessSpec, Strategy
from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.algorithm.statistics import StepSums
from asyncppo_runtime.old_logprobs.errors import VersionUnavailableError


class Timing(StrEnum):
    """When a strategy's old log-probs come to be."""

    BEFORE_SEAL = "BeforeSeal"
    """Each segment under the resident version, before that version is sealed."""
    AT_BATCH = "AtBatch"
    """When the batch is put together, from kept versions."""
    BY_WORKERS = "ByWorkers"
    """Beside everything, by old-logit workers."""
    AT_STEP = "AtStep"
    """While the step is computed, from tensors at hand: a proxy."""


@dataclass(frozen=True)
class Traits:
    """What one must know of a strategy without running it.

    kind: word for the ledger's record of how a score was made. keeps_versions: weights of older versions must stay loadable until no live
    token needs them. extra_forwards: it costs forwards beside the policy's own.
    """

    strategy: Strategy
    kind: str
    timing: Timing
    keeps_versions: bool
    extra_forwards: bool

    @property
    def exact(self) -> bool:
        """Whether every old log-prob is that of the version that sampled the token."""
        return self.strategy.exact


@dataclass(frozen=True)
class ForwardSettings:
    """How scoring forwards run. temperature: the sampling temperature. token_budget: most tokens (padding included) of one forward."""

    temperature: float = 1.0
    token_budget: int = 16384


@dataclass(frozen=True)
class HeldVersion:
    """A model that computes with the weights of `version` right now. train_hash: of the tensors it really holds."""

    model: nn.Module
    version: int
    train_hash: str


@dataclass(frozen=True)
class StrategySettings:
    """What a strategy is built from. directory: where it may keep files of its own; None: in memory only.

    published: the folder of published weights, where these are the train-side weights byte for byte (no cast for the engine); else None.
    """

    old_logits: OldLogitsSpec
    staleness: StalenessSpec
    directory: Path | None = None
    published: Path | None = None


class OldLogprobStrategy:
    """Base of all strategies; each overrides what it does differently. Tensors by canonical name as `policy.state.policy_tensors`."""

    traits: Traits

    def __init__(self, settings: StrategySettings) -> None:
        self.settings = settings

    def start(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """The run begins (or resumes without a saved state) with these resident train-side tensors."""

    def adopt(self, train_hashes: Mapping[int, str]) -> None:
        """After a restart, before `start`: the versions (version → train hash) that tokens may still be alive of."""

    def hold(self, version: int, model: nn.Module) -> AbstractContextManager[HeldVersion]:
        """`model` with the weights of `version` for as long as the context lasts; afterwards it holds exactly what it held before.

        Exact strategies only. Raises VersionUnavailableError; HeldWeightsError when the weights are not the version's.
        """
        raise VersionUnavailableError(
            version,
            f"strategy {self.traits.strategy.value} keeps no weights, so version {version} cannot be scored exactly",
        )

    def prepare(self, batch: TokenBatch, model: nn.Module, forward: ForwardSettings) -> TokenBatch:
        """The batch with what can be filled before the step's forwards; called once per step with the resident model."""
        return batch

    def proximal(self, batch: TokenBatch, policy_logprobs: Tensor) -> Tensor:
        """The anchor of r_d and r_s, float [b, T], detached, finite on loss tokens. policy_logprobs: [b, T] of the current forward."""
        return batch.old_logprobs

    def before_step(self, tensors: Mapping[str, Tensor], unscored: Collection[int]) -> None:
        """The optimizer is about to change `tensors`, the resident ones. unscored: versions that still have unscored tokens.

        Raises UnscoredTokensError when that would destroy what they need.
        """

    def after_step(self, tensors: Mapping[str, Tensor], sums: StepSums) -> None:
        """The optimizer has stepped: the new train-side tensors, and the sums of the whole step (all ranks)."""

    def published(self, version: int, tensors: Mapping[str, Tensor], train_hash: str) -> None:
        """`version` is published; `tensors` are its train-side tensors, which the next step will change in place."""

    def retired(self, version: int) -> None:
        """No token of `version` is alive any more."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep; empty for most."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up a checkpoint's state."""

    def figures(self) -> dict[str, float]:
        """The strategy's own metrics, by name; empty for most."""
        return {}

    @property
    def bytes_held(self) -> int:
        """Bytes of weights it keeps beside the model's own."""
        return 0


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of tensors that own their memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def own_copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached copies that later in-place changes do not reach."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
