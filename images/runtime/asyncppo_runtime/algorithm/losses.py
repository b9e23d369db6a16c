"""The policy losses: dataclass in, dataclass out.

Owns PPO (dual clip), CISPO, GSPO and double-sided clipping, the entropy and KL terms, and the normaliser. Does not own the
discrepancy control (`discrepancy`), log-probs (`logprobs`) nor what is reported (`statistics`).

With s the staleness ratio, A the advantage, w and m the correction's detached weight and mask, n_t the normaliser's weight of a token:

    loss = -sum_t n_t m_t w_t J_t  -  entropyCoefficient sum_t n_t H_t  +  klCoefficient sum_t n_t k3_t (bounded, see `kl_k3`)

    PPO          J = min(s A, clip(s, 1 - low, 1 + high) A); for A < 0 at least dualClip A
    GSPO         as PPO with s_i = exp(mean_t log s_t) of the sequence, its gradient spread over the tokens
    CISPO        J = sg[clip(s, 1 - low, 1 + high)] A log pi_theta
    DoubleSided  J = sg[s if 1 - low < s < 1 + high else 0] A log pi_theta
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from asyncppo.api.training import AlgorithmSpec, Loss, Normalization
from asyncppo_runtime.algorithm.discrepancy import Correction
from asyncppo_runtime.algorithm.ratios import EXPONENT_LIMIT, bounded_exp, in_log_precision, log_ratio

K3_LIMIT = 10.0


@dataclass(frozen=True)
class Normalizer:
    """What the summed loss is divided by: of the whole batch (all ranks, all micro-batches), counted before any mask.

    tokens: loss tokens. sequences: trajectories with at least one loss token.
    """

    kind: Normalization
    tokens: int
    sequences: int

    @classmethod
    def of(cls, kind: Normalization, loss_mask: Tensor) -> "Normalizer":
        """The normaliser of a batch with this loss mask, bool [B, T]."""
        return cls(kind, tokens=int(loss_mask.sum()), sequences=int(loss_mask.any(-1).sum()))

    def __add__(self, other: "Normalizer") -> "Normalizer":
        """The normaliser of two disjoint parts together."""
        return Normalizer(self.kind, self.tokens + other.tokens, self.sequences + other.sequences)

    def weights(self, loss_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """float [b, T]: each loss token's share. TokenMean: 1/tokens. SequenceMean: 1/(sequences x loss tokens of its trajectory)."""
        mask = loss_mask.to(dtype)
        if self.kind is Normalization.TOKEN_MEAN:
            return mask / max(self.tokens, 1)
        return mask / (mask.sum(-1, keepdim=True).clamp(min=1) * max(self.sequences, 1))


@dataclass(frozen=True)
class LossSettings:
    """The part of the algorithm's spec that the loss reads; see `asyncppo.api.training.AlgorithmSpec`."""

    loss: Loss = Loss.PPO
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = 3.0
    entropy_coefficient: float = 0.0
    kl_coefficient: float = 0.0

    @classmethod
    def of(cls, spec: AlgorithmSpec) -> "LossSettings":
        """The settings of a manifest's `algorithm`."""
        return cls(
            loss=spec.loss,
            clip_low=spec.clip_low,
            clip_high=spec.clip_high,
            dual_clip=spec.dual_clip,
            entropy_coefficient=spec.entropy_coefficient,
            kl_coefficient=spec.kl_coefficient,
        )


@dataclass(frozen=True)
class LossInputs:
    """All [B, T]. anchor_logprobs: exact old log-probs, or the strategy's proximal_logprobs; never differentiated.

    policy_logprobs carry the gradient; entropy and reference_logprobs are needed only where their coefficient is not 0.
    """

    policy_logprobs: Tensor
    anchor_logprobs: Tensor
    advantages: Tensor
    loss_mask: Tensor
    correction: Correction
    entropy: Tensor | None = None
    reference_logprobs: Tensor | None = None


@dataclass(frozen=True)
class LossOutput:
    """loss: scalar with gradient, already divided by the normaliser (micro-batches add up). The rest is detached.

    policy, entropy, kl: scalars, the normalised sums of the three terms (before coefficients).
    log_staleness_ratio: [B, T], 0 outside the loss mask (GSPO: the sequence's). clipped_high, clipped_low, dual_clipped: bool [B, T],
    loss tokens whose surrogate gets no gradient (CISPO: a capped weight) for that reason, whether or not the correction also masks them.
    """

    loss: Tensor
    policy: Tensor
    entropy: Tensor
    kl: Tensor
    log_staleness_ratio: Tensor
    clipped_high: Tensor
    clipped_low: Tensor
    dual_clipped: Tensor

    @property
    def clipped(self) -> Tensor:
        """bool [B, T]: clipped for any reason."""
        return self.clipped_high | self.clipped_low | self.dual_clipped


@dataclass(frozen=True)
class _Surrogate:
    """What a loss says of each token: the objective J with gradient, log s, and who was clipped."""

    objective: Tensor
    log_ratio: Tensor
    clipped_high: Tensor
    clipped_low: Tensor
    dual_clipped: Tensor


def policy_loss(settings: LossSettings, inputs: LossInputs, normalizer: Normalizer) -> LossOutput:
    """The loss of a (micro-)batch; see the module for the formulas.

    Raises ValueError when a coefficient is set and its tensor is missing.
    """
    surrogate = _SURROGATES[settings.loss](settings, inputs)
    shares = normalizer.weights(inputs.loss_mask, surrogate.objective.dtype)
    weighted = inputs.correction.weight * surrogate.objective
    # where, not a product: a masked token's objective may be anything, also infinite
    policy = -(shares * torch.where(inputs.correction.mask, weighted, 0.0)).sum()
    entropy = kl = policy.new_zeros(())
    if inputs.entropy is not None:
        entropy = (shares * torch.where(inputs.loss_mask, inputs.entropy, 0.0)).sum()
    if inputs.reference_logprobs is not None:
        kl = (shares * kl_k3(inputs.reference_logprobs.detach(), inputs.policy_logprobs, inputs.loss_mask)).sum()
    if settings.entropy_coefficient and inputs.entropy is None:
        raise ValueError("entropy_coefficient is set: pass the entropy (forward_logprobs(..., with_entropy=True))")
    if settings.kl_coefficient and inputs.reference_logprobs is None:
        raise ValueError("kl_coefficient is set: pass reference_logprobs of the initial policy")
    loss = policy
    if settings.entropy_coefficient:
        loss = loss - settings.entropy_coefficient * entropy
    if settings.kl_coefficient:
        loss = loss + settings.kl_coefficient * kl
    return LossOutput(
        loss=loss,
        policy=policy.detach(),
        entropy=entropy.detach(),
        kl=kl.detach(),
        log_staleness_ratio=surrogate.log_ratio.detach(),
        clipped_high=surrogate.clipped_high & inputs.loss_mask,
        clipped_low=surrogate.clipped_low & inputs.loss_mask,
        dual_clipped=surrogate.dual_clipped & inputs.loss_mask,
    )


def kl_k3(reference_logprobs: Tensor, policy_logprobs: Tensor, mask: Tensor) -> Tensor:
    """k3 = e^d - d - 1 with d = reference - policy log-prob, of each token; [B, T], 0 outside the mask.

    d is clamped to ±20 once, before both terms, and the result to 10: a token beyond either has no gradient. Clamping the exponential
    alone would leave -d, whose gradient pushes a token that is far too unlikely further down; without the second bound one token of
    e^20 would own the whole clipped gradient.
    """
    log = log_ratio(reference_logprobs, policy_logprobs, mask).clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT)
    return (log.exp() - log - 1).clamp(max=K3_LIMIT)


def _ppo(settings: LossSettings, inputs: LossInputs) -> _Surrogate:
    log = log_ratio(inputs.policy_logprobs, inputs.anchor_logprobs.detach(), inputs.loss_mask)
    return _clipped(settings, inputs, log)


def _gspo(settings: LossSettings, inputs: LossInputs) -> _Surrogate:
    log = log_ratio(inputs.policy_logprobs, inputs.anchor_logprobs.detach(), inputs.loss_mask)
    tokens = inputs.loss_mask.sum(-1, keepdim=True).clamp(min=1)
    mean = log.detach().sum(-1, keepdim=True) / tokens
    # value: the sequence's mean; gradient: each token's own, as if its weight were the sequence's ratio
    return _clipped(settings, inputs, torch.where(inputs.loss_mask, mean + (log - log.detach()), 0.0))


def _clipped(settings: LossSettings, inputs: LossInputs, log: Tensor) -> _Surrogate:
    ratio, advantages = bounded_exp(log), inputs.advantages
    low, high = 1.0 - settings.clip_low, 1.0 + settings.clip_high
    value = ratio.detach()
    clipped_high = (advantages > 0) & (value > high)
    clipped_low = (advantages < 0) & (value < low)
    dual = torch.zeros_like(clipped_low)
    objective = torch.where(
        clipped_high, high * advantages, torch.where(clipped_low, low * advantages, ratio * advantages)
    )
    if settings.dual_clip is not None:
        dual = (advantages < 0) & (value > settings.dual_clip)
        objective = torch.where(dual, settings.dual_clip * advantages, objective)
    return _Surrogate(objective, log, clipped_high, clipped_low, dual)


def _cispo(settings: LossSettings, inputs: LossInputs) -> _Surrogate:
    low, high = 1.0 - settings.clip_low, 1.0 + settings.clip_high
    return _reinforce(settings, inputs, lambda ratio: ratio.clamp(low, high))


def _double_sided(settings: LossSettings, inputs: LossInputs) -> _Surrogate:
    low, high = 1.0 - settings.clip_low, 1.0 + settings.clip_high
    return _reinforce(settings, inputs, lambda ratio: torch.where((ratio > low) & (ratio < high), ratio, 0.0))


def _reinforce(settings: LossSettings, inputs: LossInputs, gate: Callable[[Tensor], Tensor]) -> _Surrogate:
    log = log_ratio(inputs.policy_logprobs.detach(), inputs.anchor_logprobs.detach(), inputs.loss_mask)
    ratio = bounded_exp(log)
    logprobs = torch.where(inputs.loss_mask, in_log_precision(inputs.policy_logprobs), 0.0)
    objective = gate(ratio) * inputs.advantages * logprobs
    outside = inputs.loss_mask & (inputs.advantages != 0)
    return _Surrogate(
        objective=objective,
        log_ratio=log,
        clipped_high=outside & (ratio > 1.0 + settings.clip_high),
        clipped_low=outside & (ratio < 1.0 - settings.clip_low),
        dual_clipped=torch.zeros_like(outside),
    )


_SURROGATES: dict[Loss, Callable[[LossSettings, LossInputs], _Surrogate]] = {
    Loss.PPO: _ppo,
    Loss.GSPO: _gspo,
    Loss.CISPO: _cispo,
    Loss.DOUBLE_SIDED: _double_sided,
}
