"""The discrepancy controls, by hand-made cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import control, row

from asyncppo.api.training import DiscrepancyControl, DiscrepancySpec
from asyncppo_runtime.algorithm.discrepancy import CONTROLS, correct
from asyncppo_runtime.algorithm.errors import CombinationError


def corrected(spec: DiscrepancySpec, *ratios: float, mask: list[bool] | None = None):
    old = row(*ratios).log() - 1.0
    loss_mask = torch.tensor([mask or [True] * len(ratios)])
    return correct(spec, old, torch.full_like(old, -1.0), loss_mask)


def test_token_mask_is_inclusive_and_symmetric():
    spec = control(DiscrepancyControl.TOKEN_MASK, bound=1.25)
    edge = math.log(1.25)
    behavior = row(0.0, 0.0, 0.0, 0.0, 0.0)
    old = row(edge, -edge, math.nextafter(edge, 1), math.nextafter(-edge, -1), 0.0)
    kept = correct(spec, old, behavior, torch.ones(1, 5, dtype=torch.bool)).mask
    assert kept[0].tolist() == [True, True, False, False, True]


def test_bound_one_keeps_only_equal_log_probs():
    result = corrected(control(DiscrepancyControl.TOKEN_MASK, bound=1.0), 1.0, 1.001)
    assert result.mask[0].tolist() == [True, False]


def test_weight_inside_the_mask_is_the_capped_ratio_or_one():
    spec = control(DiscrepancyControl.TOKEN_MASK, bound=4.0, cap=2.0)
    result = corrected(spec, 0.5, 1.5, 3.0, 5.0)
    assert result.weight[0].tolist() == pytest.approx([0.5, 1.5, 2.0, 0.0])
    plain = corrected(control(DiscrepancyControl.TOKEN_MASK, bound=4.0, weight="MaskOnly"), 0.5, 1.5, 3.0, 5.0)
    assert plain.weight[0].tolist() == [1.0, 1.0, 1.0, 0.0]


def test_tis_keeps_all_and_caps():
    result = corrected(control(DiscrepancyControl.TIS, cap=2.0), 0.01, 1.0, 7.0)
    assert result.mask.all()
    assert result.weight[0].tolist() == pytest.approx([0.01, 1.0, 2.0])
    with pytest.raises(CombinationError, match="MaskOnly"):
        corrected(control(DiscrepancyControl.TIS, weight="MaskOnly"), 1.0)


def test_ice_pop_has_its_own_upper_bound_and_the_plain_ratio_as_weight():
    """bound 2 and cap 5 are the reference band [0.5, 5]."""
    result = corrected(control(DiscrepancyControl.ICE_POP, bound=2.0, cap=5.0), 0.49, 0.51, 4.9, 5.1)
    assert result.mask[0].tolist() == [False, True, True, False]
    assert result.weight[0].tolist() == pytest.approx([0.0, 0.51, 4.9, 0.0])


def test_without_limits_tis_and_ice_pop_are_plain_importance_weighting():
    ratios = (1e-6, 0.3, 1.0, 7.0, 4e5)
    for spec in (
        control(DiscrepancyControl.TIS, cap=1e9),
        control(DiscrepancyControl.ICE_POP, bound=1e9, cap=1e9),
    ):
        result = corrected(spec, *ratios)
        assert result.mask.all()
        assert result.weight[0].tolist() == pytest.approx(list(ratios))


def test_sequence_mask_takes_the_product():
    spec = control(DiscrepancyControl.SEQUENCE_MASK, bound=1.5)
    assert corrected(spec, 1.2, 1.2).mask.all()
    assert not corrected(spec, 1.3, 1.3).mask.any()
    assert corrected(spec, 1.3, 1.3, mask=[True, False]).mask[0].tolist() == [True, False]


def test_geometric_mask_takes_the_mean_over_loss_tokens():
    spec = control(DiscrepancyControl.GEOMETRIC_MASK, bound=1.15)
    assert not corrected(spec, 1.2, 1.2).mask.any()
    assert corrected(spec, 1.2, 1.0).mask.all()
    assert not corrected(spec, 1.4, 1.0, 1.0, mask=[True, True, False]).mask.any()
    assert corrected(spec, 1.3, 1.0, 1.0, mask=[True, True, False]).mask[0].tolist() == [True, True, False]


def test_veto_drops_the_sequence_for_one_token():
    spec = control(DiscrepancyControl.VETO, bound=1e4)
    assert corrected(spec, 1.0, 1e3).mask.all()
    assert not corrected(spec, 1.0, 1e-5).mask.any()
    assert corrected(spec, 1.0, 1e-5, mask=[True, False]).mask[0].tolist() == [True, False]


def test_sequences_are_judged_each_on_its_own():
    old = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    for kind in (DiscrepancyControl.SEQUENCE_MASK, DiscrepancyControl.GEOMETRIC_MASK, DiscrepancyControl.VETO):
        kept = correct(control(kind, bound=1.2), old, torch.zeros_like(old), torch.ones(2, 2, dtype=torch.bool)).mask
        assert kept.tolist() == [[True, True], [False, False]]


def test_none_keeps_everything_at_weight_one():
    result = corrected(control(DiscrepancyControl.NONE), 0.001, 1000.0)
    assert result.mask.all()
    assert result.weight[0].tolist() == [1.0, 1.0]


@settings(max_examples=100)
@given(
    kind=st.sampled_from(list(DiscrepancyControl)),
    logs=st.lists(st.floats(-8, 8), min_size=1, max_size=6),
    bound=st.floats(1.0, 10.0),
    data=st.data(),
)
def test_every_control_is_detached_confined_to_loss_tokens_and_exact_at_no_discrepancy(kind, logs, bound, data):
    mask = torch.tensor([data.draw(st.lists(st.booleans(), min_size=len(logs), max_size=len(logs)))])
    old = row(*logs).requires_grad_()
    nan = torch.where(mask, old, torch.nan)
    result = correct(control(kind, bound=bound), nan, torch.zeros_like(old), mask)
    assert not result.weight.requires_grad
    assert not (result.mask & ~mask).any()
    assert result.weight.isfinite().all()
    assert (result.weight[~result.mask] == 0).all()
    assert (result.weight >= 0).all()
    same = correct(control(kind, bound=bound), nan, nan, mask)
    assert (same.mask == mask).all()
    assert (same.weight[mask] == 1).all()


# Weight of each token of two sequences with these ratios r_d, bound 1.5, cap 2, weight Importance: 0 is masked. One row per control; a new
# control needs its own. Products: 0.7 and 3.6; geometric means: 0.89 and 1.53.
RATIOS = ((0.5, 1.0, 1.4), (1.2, 1.2, 2.5))
EXPECTED: dict[DiscrepancyControl, tuple[tuple[float, ...], tuple[float, ...]]] = {
    DiscrepancyControl.TOKEN_MASK: ((0.0, 1.0, 1.4), (1.2, 1.2, 0.0)),
    DiscrepancyControl.TIS: ((0.5, 1.0, 1.4), (1.2, 1.2, 2.0)),
    DiscrepancyControl.ICE_POP: ((0.0, 1.0, 1.4), (1.2, 1.2, 0.0)),
    DiscrepancyControl.SEQUENCE_MASK: ((0.5, 1.0, 1.4), (0.0, 0.0, 0.0)),
    DiscrepancyControl.GEOMETRIC_MASK: ((0.5, 1.0, 1.4), (0.0, 0.0, 0.0)),
    DiscrepancyControl.VETO: ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    DiscrepancyControl.NONE: ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
}


def test_every_control_of_the_api_is_there_and_in_the_table():
    assert set(CONTROLS) == set(DiscrepancyControl) == set(EXPECTED)


@pytest.mark.parametrize("kind", list(DiscrepancyControl))
def test_every_control_gives_the_weights_of_the_table(kind):
    old = torch.tensor(RATIOS, dtype=torch.float64).log()
    result = correct(control(kind, bound=1.5, cap=2.0), old, torch.zeros_like(old), torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(result.weight, torch.tensor(EXPECTED[kind], dtype=torch.float64), rtol=1e-12, atol=0)
    assert (result.mask == (result.weight > 0)).all()
