"""Which settings contradict each other or count one factor twice.

Owns the reasons. Does not own where they are shown (validation, the learner's start).
"""

from asyncppo.api.correction import Strategy
from asyncppo.api.training import AlgorithmSpec, DiscrepancyControl, DiscrepancyWeight, Loss
from asyncppo_runtime.algorithm.errors import CombinationError

_WEIGHT_CONTROLS = (DiscrepancyControl.TIS, DiscrepancyControl.ICE_POP)


def check_combination(algorithm: AlgorithmSpec, strategy: Strategy) -> None:
    """Raise CombinationError, naming the field to change, for a combination that double-counts or contradicts itself."""
    reason = double_counting(algorithm, strategy)
    if reason:
        raise CombinationError(reason)


def double_counting(algorithm: AlgorithmSpec, strategy: Strategy) -> str:
    """The reason why this combination is refused, or the empty string."""
    discrepancy = algorithm.discrepancy
    controlled = discrepancy.control is not DiscrepancyControl.NONE
    weighted = discrepancy.control in _WEIGHT_CONTROLS or discrepancy.weight is DiscrepancyWeight.IMPORTANCE
    if strategy is Strategy.ROLLOUT and controlled and weighted:
        return (
            "oldLogits.strategy Rollout takes the engine's log-probs as old ones, so the staleness ratio is already "
            "policy/behavior and holds the whole discrepancy; an importance weight on top would count it twice. "
            "Set algorithm.discrepancy.control: None"
        )
    if strategy is Strategy.ROLLOUT and controlled:
        return (
            "oldLogits.strategy Rollout takes the engine's log-probs as old ones, so the discrepancy ratio is 1 everywhere "
            "and a mask on it can never act. Set algorithm.discrepancy.control: None"
        )
    if discrepancy.control is DiscrepancyControl.TIS and discrepancy.weight is DiscrepancyWeight.MASK_ONLY:
        return (
            "algorithm.discrepancy.control TIS is nothing but a weight, and weight: MaskOnly takes it away. "
            "Set weight: Importance, or control: None"
        )
    if discrepancy.control is DiscrepancyControl.ICE_POP and discrepancy.weight is DiscrepancyWeight.MASK_ONLY:
        return (
            "algorithm.discrepancy.control IcePop weights a kept token by its ratio; with weight: MaskOnly it would be a plain mask. "
            "Set weight: Importance, or control: TokenMask"
        )
    if (
        algorithm.loss in (Loss.CISPO, Loss.DOUBLE_SIDED)
        and "dual_clip" in algorithm.model_fields_set
        and algorithm.dual_clip
    ):
        return (
            f"algorithm.dualClip acts on PPO and GSPO only; {algorithm.loss.value} bounds its weight by clipLow and clipHigh. "
            "Leave it out"
        )
    return ""
