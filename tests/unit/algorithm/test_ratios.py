"""The two factors: telescoping, safety, values published elsewhere, and what enumeration proves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import row

from asyncppo_runtime.algorithm.ratios import bounded_exp, log_ratio

ALL = torch.ones(1, 1, dtype=torch.bool)
logprob = st.floats(-18.0, 0.0)


def ratio_of(numerator, denominator, mask):
    """The ratio as losses and controls make it: the denominator is an anchor, or what the engine said."""
    return bounded_exp(log_ratio(numerator, denominator.detach(), mask))


@settings(max_examples=200)
@given(policy=logprob, old=logprob, behavior=logprob)
def test_factors_telescope(policy, old, behavior):
    r_d = ratio_of(row(old), row(behavior), ALL)
    r_s = ratio_of(row(policy), row(old), ALL)
    r = ratio_of(row(policy), row(behavior), ALL)
    assert (r_d * r_s).item() == pytest.approx(r.item(), rel=1e-12)


def test_published_values_of_verl():
    old, behavior = row(-2.0, -2.0), row(-1.0, -2.5)
    ratio = ratio_of(old, behavior, torch.ones(1, 2, dtype=torch.bool))
    assert ratio[0].tolist() == pytest.approx([0.368, 1.649], abs=5e-4)


def test_nan_outside_the_mask_harms_neither_value_nor_gradient():
    policy = row(-1.0, -2.0).requires_grad_()
    old = row(-1.5, float("nan"))
    mask = torch.tensor([[True, False]])
    ratio = ratio_of(policy, old, mask)
    assert ratio[0, 1] == 1.0
    ratio.sum().backward()
    assert policy.grad.isfinite().all()
    assert policy.grad[0, 0] == pytest.approx(ratio[0, 0].item())


def test_exponents_are_clamped():
    old, policy = row(-500.0), row(-1.0).requires_grad_()
    ratio = ratio_of(policy, old, ALL)
    assert ratio.item() == pytest.approx(torch.tensor(20.0).exp().item(), rel=1e-6)
    ratio.sum().backward()
    assert policy.grad.item() == 0.0, "no gradient beyond the clamp"


def test_log_space_is_at_least_float32():
    low = torch.tensor([[-1.0]], dtype=torch.bfloat16)
    assert log_ratio(low, low, ALL).dtype == torch.float32
    assert log_ratio(row(-1.0), row(-1.0), ALL).dtype == torch.float64


def test_importance_weights_are_unbiased_by_enumeration():
    """E_mu[r] = 1, E_mu[r_d] = 1, E_mu[r f] = E_pi[f] over all outcomes; E_mu[r_s] is not 1 in general."""
    g = torch.Generator().manual_seed(0)
    mu, old, policy = (torch.log_softmax(torch.randn(1, 7, generator=g, dtype=torch.float64), -1) for _ in range(3))
    mask = torch.ones(1, 7, dtype=torch.bool)
    f = torch.randn(1, 7, generator=g, dtype=torch.float64)
    p = mu.exp()
    r = ratio_of(policy, mu, mask)
    assert (p * r).sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (p * ratio_of(old, mu, mask)).sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (p * r * f).sum().item() == pytest.approx((policy.exp() * f).sum().item(), abs=1e-12)
    assert abs((p * ratio_of(policy, old, mask)).sum().item() - 1.0) > 0.01


def test_nucleus_sampling_needs_the_same_support():
    """An unchanged policy, sampled with top-p keeping mass .95: raw train log-probs give .95 on kept tokens, renormalised ones 1."""
    raw = row(0.5, 0.3, 0.15, 0.05).log()
    kept = torch.tensor([[True, True, True, False]])
    processed = torch.where(kept, raw - torch.tensor(0.95).double().log(), -torch.inf)
    assert ratio_of(raw, processed, kept)[kept].tolist() == pytest.approx([0.95] * 3)
    renormalised = torch.where(kept, raw, -torch.inf).log_softmax(-1)
    assert ratio_of(renormalised, processed, kept)[kept].tolist() == pytest.approx([1.0] * 3)
