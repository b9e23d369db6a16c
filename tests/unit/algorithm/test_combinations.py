"""Settings that double-count are refused, with the field to change; everything else is not."""

import pytest
from tests.unit.algorithm.builders import control

from asyncppo.api.correction import Strategy
from asyncppo.api.training import AlgorithmSpec, DiscrepancyControl, DiscrepancyWeight, Loss
from asyncppo_runtime.algorithm.combinations import check_combination, contradiction
from asyncppo_runtime.algorithm.errors import CombinationError


def algorithm(kind=DiscrepancyControl.TOKEN_MASK, weight="Importance", loss=Loss.PPO):
    return AlgorithmSpec(updates=1, loss=loss, discrepancy=control(kind, weight=weight))


@pytest.mark.parametrize(
    "kind", [k for k in DiscrepancyControl if k not in (DiscrepancyControl.TOKEN_MASK, DiscrepancyControl.NONE)]
)
def test_no_control_on_a_ratio_anchored_at_the_rollout(kind):
    with pytest.raises(CombinationError, match=r"count it twice; set control: None"):
        check_combination(algorithm(kind), Strategy.ROLLOUT)


@pytest.mark.parametrize("kind", [DiscrepancyControl.TIS, DiscrepancyControl.ICE_POP])
def test_weights_without_weight_are_refused(kind):
    with pytest.raises(CombinationError, match="MaskOnly"):
        check_combination(algorithm(kind, weight="MaskOnly"), Strategy.SNAPSHOT)


def test_everything_else_is_accepted():
    for strategy in Strategy:
        for kind in DiscrepancyControl:
            for weight in DiscrepancyWeight:
                for loss in Loss:
                    refused = (strategy is Strategy.ROLLOUT and kind.value not in ("TokenMask", "None")) or (
                        weight is DiscrepancyWeight.MASK_ONLY and kind.value in ("TIS", "IcePop")
                    )
                    assert bool(contradiction(algorithm(kind, weight.value, loss), strategy)) == refused
