"""EWMA: an exponentially weighted average of the train-side weights serves as the anchor. Inexact.

Owns the average, its reset rule and its decay. Does not own the forward (`exact_scorer`) nor the loss.

Debiased average of Hilton, Cobbe, Schulman 2021 (arXiv 2110.00641), one update per published version:

    W_0 = 1, theta_prox = theta_0;   W_t = beta W_{t-1} + 1;   theta_prox <- theta_prox beta W_{t-1}/W_t + theta_t/W_t

and from arXiv 2605.12070: beta = W/(W + 2) for a staleness window W (centre of mass W/2), and theta_prox <- theta_t when the fraction of
active tokens falls below a threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asyncppo.api.correction import Strategy
from asyncppo_runtime.algorithm.batch import NO_VERSION, TokenBatch
from asyncppo_runtime.algorithm.statistics import StepSums
from asyncppo_runtime.old_logprobs.exact_scorer import batch_logprobs
from asyncppo_runtime.old_logprobs.interface import (
    ForwardSettings,
    OldLogprobStrategy,
    StrategySettings,
    Timing,
    Traits,
    bytes_of,
)
from asyncppo_runtime.old_logprobs.parameters import borrowed

_PREFIX = "average."
_WEIGHT, _RESETS, _SINCE_RESET = "weight", "resets", "since_reset"


def staleness_decay(window: int) -> float:
    """beta = W/(W + 2): centre of mass beta/(1 - beta) = W/2, the mean of staleness spread evenly over [0, W]."""
    return window / (window + 2)


@dataclass(frozen=True)
class ResetRule:
    """Reset when the active fraction is *below* `threshold`, at most once in `cooldown` + 1 steps."""

    threshold: float = 0.9
    cooldown: int = 1

    def fires(self, active: int, measured: int, steps_since_reset: int) -> bool:
        """active, measured: counts summed over all ranks (a mean of the ranks' fractions would weigh them wrongly).

        steps_since_reset: steps since the last reset. Without measured tokens nothing fires.
        """
        if measured == 0 or steps_since_reset <= self.cooldown:
            return False
        return active / measured < self.threshold


class WeightAverage:
    """The debiased average. tensors: in at least float32, floating ones averaged, others the newest. weight: W_t."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.weight = 1.0
        self.reset(tensors)

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        """Take up the newest version's tensors. decay 0 is a reset."""
        before = self.weight
        self.weight = decay * before + 1.0
        for name, average in self.tensors.items():
            newest = tensors[name].detach()
            if average.is_floating_point():
                average.mul_(decay * before / self.weight).add_(newest.to(average.dtype), alpha=1.0 / self.weight)
            else:
                average.copy_(newest)

    @torch.no_grad()
    def reset(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin anew from these tensors."""
        self.weight = 1.0
        self.tensors = {name: _wide(tensor) for name, tensor in tensors.items()}

    @torch.no_grad()
    def distance(self, tensors: Mapping[str, Tensor]) -> float:
        """||theta - theta_prox|| / ||theta|| over floating tensors."""
        apart = norm = 0.0
        for name, average in self.tensors.items():
            if average.is_floating_point():
                newest = tensors[name].detach().to(average.dtype)
                apart += float((newest - average).double().square().sum())
                norm += float(newest.double().square().sum())
        return (apart / norm) ** 0.5 if norm else 0.0


class Ewma(OldLogprobStrategy):
    """pi_prox = the policy of averaged weights: one anchor for all tokens of a step, whatever their version."""

    traits = Traits(Strategy.EWMA, "ewma", Timing.AT_STEP, keeps_versions=False, extra_forwards=True)

    def __init__(self, settings: StrategySettings) -> None:
        super().__init__(settings)
        spec = settings.old_logits.ewma
        self.decay = staleness_decay(settings.staleness.max_versions) if spec.decay is None else spec.decay
        self.rule = ResetRule(spec.reset_below)
        self.average: WeightAverage | None = None
        self.resets = 0
        self.steps_since_reset = 0
        self._distance = 0.0

    def start(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """The average begins as the resident weights."""
        self.average = WeightAverage(tensors)

    def prepare(self, batch: TokenBatch, model: nn.Module, forward: ForwardSettings) -> TokenBatch:
        """One forward of the averaged weights over the batch; it comes before the update that ends the step."""
        with borrowed(model, self._average().tensors):
            logprobs = batch_logprobs(model, batch, forward)
        return batch.with_old(logprobs, torch.full_like(batch.policy_version, NO_VERSION))

    def after_step(self, tensors: Mapping[str, Tensor], sums: StepSums) -> None:
        """Update the average, or reset it when too few tokens were active; either way it holds from the next step on."""
        average = self._average()
        self.steps_since_reset += 1
        if self.rule.fires(sums.active, sums.measured, self.steps_since_reset):
            average.reset(tensors)
            self.resets += 1
            self.steps_since_reset = 0
        else:
            average.update(tensors, self.decay)
        self._distance = average.distance(tensors)

    def state(self) -> dict[str, Tensor]:
        """The average and its counters."""
        average = self._average()
        counters = {_WEIGHT: average.weight, _RESETS: self.resets, _SINCE_RESET: self.steps_since_reset}
        scalars = {name: torch.tensor(float(value), dtype=torch.float64) for name, value in counters.items()}
        return scalars | {_PREFIX + name: tensor.clone() for name, tensor in average.tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
        self.average = WeightAverage(tensors)
        self.average.weight = float(state[_WEIGHT])
        self.resets, self.steps_since_reset = int(state[_RESETS]), int(state[_SINCE_RESET])

    def figures(self) -> dict[str, float]:
        """decay, centre of mass (versions), relative distance of the anchor, resets, steps since the last."""
        return {
            "decay": self.decay,
            "centre_of_mass": self.decay / (1 - self.decay),
            "distance": self._distance,
            "resets": float(self.resets),
            "steps_since_reset": float(self.steps_since_reset),
        }

    @property
    def bytes_held(self) -> int:
        """Bytes of the average."""
        return bytes_of(self.average.tensors) if self.average is not None else 0

    def _average(self) -> WeightAverage:
        if self.average is None:
            raise RuntimeError("EWMA has not been started: call start() or restore() with the resident weights first")
        return self.average


def _wide(tensor: Tensor) -> Tensor:
    widen = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.detach().to(dtype=torch.float32 if widen else tensor.dtype, copy=True)
