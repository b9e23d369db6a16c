"""The critic's loss against its formula in plain Python and against differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncppo.api.training import Normalization
from asyncppo_runtime.algorithm.losses import Normalizer
from asyncppo_runtime.algorithm.value_loss import explained_variance, value_loss


def inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    values, old, returns = (torch.randn(3, 6, generator=g, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(3, 6, generator=g) < 0.6
    mask[0, 0] = True
    return values, old, returns, mask


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    clip=st.one_of(st.none(), st.floats(0.05, 2.0)),
    kind=st.sampled_from(list(Normalization)),
)
def test_the_loss_is_its_formula(seed: int, clip: float | None, kind: Normalization) -> None:
    values, old, returns, mask = inputs(seed)
    found = value_loss(values, old, returns, mask, Normalizer.of(kind, mask), clip)
    tokens, sequences = int(mask.sum()), int(mask.any(-1).sum())
    expected = 0.0
    for row, t in torch.nonzero(mask).tolist():
        v, v0, r = (float(x[row, t]) for x in (values, old, returns))
        plain = (v - r) ** 2
        held = plain if clip is None else (v0 + max(-clip, min(clip, v - v0)) - r) ** 2
        share = 1 / tokens if kind is Normalization.TOKEN_MEAN else 1 / (sequences * int(mask[row].sum()))
        expected += 0.5 * share * max(plain, held)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_gradient_is_that_of_differences(clip: float | None) -> None:
    values, old, returns, mask = inputs(4)
    normalizer = Normalizer.of(Normalization.TOKEN_MEAN, mask)
    values.requires_grad_()
    torch.autograd.backward(value_loss(values, old, returns, mask, normalizer, clip))
    assert values.grad is not None
    for row, t in ((0, 0), (1, 3), (2, 5)):
        step = torch.zeros_like(values.detach())
        step[row, t] = 1e-6
        high = float(value_loss(values.detach() + step, old, returns, mask, normalizer, clip))
        low = float(value_loss(values.detach() - step, old, returns, mask, normalizer, clip))
        assert float(values.grad[row, t]) == pytest.approx((high - low) / 2e-6, abs=1e-8)
    assert values.grad[~mask].abs().sum() == 0


def test_micro_batches_add_up() -> None:
    values, old, returns, mask = inputs(9)
    normalizer = Normalizer.of(Normalization.TOKEN_MEAN, mask)
    whole = value_loss(values, old, returns, mask, normalizer, 0.2)
    parts = [
        value_loss(values[i : i + 1], old[i : i + 1], returns[i : i + 1], mask[i : i + 1], normalizer, 0.2)
        for i in range(3)
    ]
    assert float(whole) == pytest.approx(sum(float(part) for part in parts), rel=1e-12)


def test_explained_variance() -> None:
    returns = torch.tensor([[1.0, 2.0, 4.0, 99.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(returns + 7.0, returns, mask) == pytest.approx(1.0), "an offset is not variance"
    assert explained_variance(torch.zeros_like(returns), returns, mask) == 0.0
    assert explained_variance(returns, torch.ones_like(returns), mask) == 0.0
