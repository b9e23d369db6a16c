"""What proxies decide wrongly, case by case and on a population; exact old log-probs decide nothing wrongly."""

import pytest
import torch
from tests.unit.algorithm.builders import control, row

from asyncppo.api.training import DiscrepancyControl
from asyncppo_runtime.algorithm.audit import AuditSums, audit, decide
from asyncppo_runtime.algorithm.losses import LossSettings
from asyncppo_runtime.old_logprobs.interpolation import log_linear

ONE = torch.ones(1, 1, dtype=torch.bool)
PPO = LossSettings(dual_clip=None)


@pytest.mark.parametrize(
    ("mismatch", "drift", "advantage", "bound", "proxy", "exact_decision", "proxy_decision"),
    [
        pytest.param(1.0, 1.5, -1.0, 1.2, "recompute", (False, False), (True, False), id="A: false mask"),
        pytest.param(0.7, 1.4, -1.0, 1.2, "recompute", (True, False), (False, False), id="B: missed mask"),
        pytest.param(1.0, 1.5, 1.0, 2.0, "recompute", (False, True), (False, False), id="C: missed clip"),
        pytest.param(1.25, 1.0, 1.0, 1.2, "rollout", (True, False), (False, True), id="D: false clip and missed mask"),
    ],
)
def test_hand_cases(mismatch, drift, advantage, bound, proxy, exact_decision, proxy_decision):
    behavior = row(-3.0)
    exact = behavior + row(mismatch).log()
    policy = exact + row(drift).log()
    anchor = policy if proxy == "recompute" else behavior
    spec = control(DiscrepancyControl.TOKEN_MASK, bound=bound)

    def of(anchor_logprobs):
        found = decide(PPO, spec, anchor_logprobs, behavior, policy, row(advantage), ONE)
        return found.masked.item(), found.clipped.item()

    assert of(exact) == exact_decision
    assert of(anchor) == proxy_decision
    sums = audit(PPO, spec, anchor, exact, behavior, policy, row(advantage), ONE)
    differs = [w != r for w, r in zip(proxy_decision, exact_decision, strict=True)]
    assert sums.tokens == 1
    assert sums.agree == (not any(differs))
    assert (sums.false_mask + sums.missed_mask, sums.false_clip + sums.missed_clip) == (
        int(differs[0]),
        int(differs[1]),
    )
    assert sums.absolute_error == pytest.approx(abs((anchor - exact).item()))


def population(seed: int, tokens: int = 4000):
    """Old policy, a quantised engine of it, and a policy that has drifted on."""
    g = torch.Generator().manual_seed(seed)
    old = -4 * torch.rand(1, tokens, generator=g, dtype=torch.float64) - 0.1
    behavior = old + 0.12 * torch.randn(1, tokens, generator=g, dtype=torch.float64)
    policy = old + 0.25 * torch.randn(1, tokens, generator=g, dtype=torch.float64)
    advantages = torch.randn(1, tokens, generator=g, dtype=torch.float64)
    return old, behavior, policy, advantages, torch.ones(1, tokens, dtype=torch.bool)


def test_exact_has_no_error_and_every_proxy_differs():
    old, behavior, policy, advantages, mask = population(0)
    spec = control(DiscrepancyControl.TOKEN_MASK, bound=1.2)
    proxies = {
        "recompute": policy,
        "rollout": behavior,
        "loglinear": log_linear(behavior, policy, torch.full_like(old, 0.5)),
    }
    exact = audit(PPO, spec, old, old, behavior, policy, advantages, mask)
    assert exact == AuditSums(tokens=old.numel(), agree=old.numel())
    for anchor in proxies.values():
        assert audit(PPO, spec, anchor, old, behavior, policy, advantages, mask).agree < old.numel()
    recompute = audit(PPO, spec, policy, old, behavior, policy, advantages, mask)
    assert recompute.false_mask > 0
    assert recompute.missed_clip > 0
    assert recompute.false_clip == 0  # its staleness ratio is 1: it never clips
    rollout = audit(PPO, spec, behavior, old, behavior, policy, advantages, mask)
    assert rollout.false_mask == 0  # its discrepancy ratio is 1: it never masks
    assert rollout.missed_mask > 0
    assert rollout.false_clip > 0


def test_counts_add_up_over_parts():
    old, behavior, policy, advantages, mask = population(1, 300)
    spec = control(DiscrepancyControl.TOKEN_MASK, bound=1.2)
    whole = audit(PPO, spec, policy, old, behavior, policy, advantages, mask)
    halves = [
        audit(PPO, spec, policy[:, s], old[:, s], behavior[:, s], policy[:, s], advantages[:, s], mask[:, s])
        for s in (slice(0, 100), slice(100, 300))
    ]
    total = halves[0] + halves[1]
    assert total.absolute_error == pytest.approx(whole.absolute_error)
    counts = ("tokens", "agree", "false_mask", "missed_mask", "false_clip", "missed_clip")
    assert [getattr(total, name) for name in counts] == [getattr(whole, name) for name in counts]
