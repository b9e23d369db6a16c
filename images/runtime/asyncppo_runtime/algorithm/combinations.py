"""Which settings of the objective contradict each other or count one factor twice.

Owns the reasons. Does not own where they are shown (validation, the learner's start).
"""

from asyncppo.api.correction import Strategy
from asyncppo.api.training import AlgorithmSpec, DiscrepancyControl, DiscrepancyWeight
from asyncppo_runtime.algorithm.errors import CombinationError

# Under Rollout the discrepancy ratio is exactly 1: the default mask then keeps everything at weight 1, which is harmless.
_FINE_WITH_ROLLOUT = (DiscrepancyControl.TOKEN_MASK, DiscrepancyControl.NONE)


def check_combination(algorithm: AlgorithmSpec, strategy: Strategy) -> None:
    """Raise CombinationError, naming the field to change, for a combination that double-counts or contradicts itself."""
    reason = contradiction(algorithm, strategy)
    if reason:
        raise CombinationError(reason)


def contradiction(algorithm: AlgorithmSpec, strategy: Strategy) -> str:
    """The reason why this combination is refused, or the empty string."""
    discrepancy = algorithm.discrepancy
    if strategy is Strategy.ROLLOUT and discrepancy.control not in _FINE_WITH_ROLLOUT:
        return (
            f"algorithm.discrepancy.control {discrepancy.control.value} with oldLogits.strategy Rollout: the engine's log-probs serve as "
            "old ones there, so the clipped ratio already holds the whole discrepancy and a weight or mask on it would count it twice; "
            "set control: None"
        )
    if discrepancy.weight is DiscrepancyWeight.MASK_ONLY and discrepancy.control is DiscrepancyControl.TIS:
        return (
            "algorithm.discrepancy.control TIS is nothing but a weight, and weight: MaskOnly takes it away; "
            "set weight: Importance, or control: None"
        )
    if discrepancy.weight is DiscrepancyWeight.MASK_ONLY and discrepancy.control is DiscrepancyControl.ICE_POP:
        return (
            "algorithm.discrepancy.control IcePop weights a kept token by its ratio, and weight: MaskOnly takes that away; "
            "set weight: Importance, or control: TokenMask"
        )
    return ""
