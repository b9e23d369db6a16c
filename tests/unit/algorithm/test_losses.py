"""The losses: hand-made gradients at the clip, closed forms against central differences, and identities between variants."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import NO_CONTROL, control, loss_inputs, random_batch, row

from asyncppo.api.training import AlgorithmSpec, DiscrepancyControl, Loss, Normalization
from asyncppo_runtime.algorithm.batch import TokenBatch, micro_batches
from asyncppo_runtime.algorithm.losses import LossInputs, LossSettings, Normalizer, kl_k3, policy_loss

UNIT = Normalizer(Normalization.TOKEN_MEAN, tokens=1, sequences=1)
TOKEN_MASK = control(DiscrepancyControl.TOKEN_MASK, bound=1.25)


def gradient(
    settings_: LossSettings, ratio: float, advantage: float, discrepancy: float = 1.0, spec=NO_CONTROL
) -> float:
    """-d loss / d log pi of one token with this staleness ratio; its old log-prob is -1."""
    policy = (row(ratio).log() - 1.0).requires_grad_()
    behavior = -1.0 - row(discrepancy).log()
    inputs = loss_inputs(policy, row(-1.0), behavior, row(advantage), spec=spec)
    (grad,) = torch.autograd.grad(policy_loss(settings_, inputs, UNIT).loss, policy)
    return -grad.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.19, 2.0, 1.19 * 2.0),
        (1.21, 2.0, 0.0),
        (0.5, 2.0, 0.5 * 2.0),
        (0.81, -2.0, 0.81 * -2.0),
        (0.79, -2.0, 0.0),
        (1.5, -2.0, 1.5 * -2.0),
        (2.9, -2.0, 2.9 * -2.0),
        (3.1, -2.0, 0.0),
        (3.1, 0.0, 0.0),
    ],
)
def test_ppo_gradient_at_the_boundaries(ratio, advantage, expected):
    assert gradient(LossSettings(), ratio, advantage) == pytest.approx(expected)


def test_without_dual_clip_a_negative_advantage_is_unbounded():
    assert gradient(LossSettings(dual_clip=None), 50.0, -1.0) == pytest.approx(-50.0)


def test_asymmetric_clip():
    wide = LossSettings(clip_low=0.1, clip_high=0.28)
    assert gradient(wide, 1.27, 1.0) != 0
    assert gradient(wide, 1.29, 1.0) == 0
    assert gradient(wide, 0.89, -1.0) == 0
    assert gradient(wide, 0.91, -1.0) != 0


def test_values_are_the_clipped_surrogate():
    policy = row(1.5, 0.5, 4.0, 1.1).log()
    advantages = row(1.0, -1.0, -1.0, -1.0)
    out = policy_loss(LossSettings(), loss_inputs(policy, row(0, 0, 0, 0), row(0, 0, 0, 0), advantages), UNIT)
    assert out.loss.item() == pytest.approx(-(1.2 - 0.8 - 3.0 - 1.1))
    assert out.clipped_high[0].tolist() == [True, False, False, False]
    assert out.clipped_low[0].tolist() == [False, True, False, False]
    assert out.dual_clipped[0].tolist() == [False, False, True, False]
    assert out.clipped[0].tolist() == [True, True, True, False]


@pytest.mark.parametrize("spec", [TOKEN_MASK, control(DiscrepancyControl.TIS, cap=100.0)])
def test_discrepancy_weight_and_mask_enter_the_gradient(spec):
    assert gradient(LossSettings(), 1.1, 1.0, discrepancy=1.2, spec=spec) == pytest.approx(1.2 * 1.1)
    masked = gradient(LossSettings(), 1.1, 1.0, discrepancy=1.3, spec=spec)
    assert masked == (0 if spec is TOKEN_MASK else pytest.approx(1.3 * 1.1))


@settings(max_examples=60)
@given(st.floats(-6, -0.1), st.floats(-0.17, 0.17), st.floats(-6, -0.1), st.sampled_from([-1.3, 0.8]))
def test_an_anchor_changes_who_is_active_never_the_weight_of_an_active_token(policy, drift, behavior, advantage):
    """With weight r_d, an active token's weight is the whole r = pi/mu whatever the anchor (uncapped, unmasked)."""
    spec = control(DiscrepancyControl.TIS, cap=1e9)
    p = row(policy).requires_grad_()
    grads = []
    for anchor in (policy + drift, policy):
        inputs = loss_inputs(p, row(anchor), row(behavior), row(advantage), spec=spec)
        grads.append(torch.autograd.grad(policy_loss(LossSettings(), inputs, UNIT).loss, p)[0].item())
    r = (row(policy) - row(behavior)).exp().item()
    assert grads == pytest.approx([-r * advantage] * 2, rel=1e-9)


def closed_form(
    batch: TokenBatch, policy: torch.Tensor, settings_: LossSettings, normalizer: Normalizer, spec
) -> torch.Tensor:
    """d loss / d log pi, straight from the formula, token by token in Python."""
    grad = torch.zeros_like(policy)
    sequences = int(batch.loss_mask.any(-1).sum())
    for i, t in torch.nonzero(batch.loss_mask).tolist():
        r_s = float((policy[i, t] - batch.old_logprobs[i, t]).exp())
        r_d = float((batch.old_logprobs[i, t] - batch.behavior_logprobs[i, t]).exp())
        a = float(batch.advantages[i, t])
        clipped = (a > 0 and r_s > 1 + settings_.clip_high) or (a < 0 and r_s < 1 - settings_.clip_low)
        clipped = clipped or (a < 0 and settings_.dual_clip is not None and r_s > settings_.dual_clip)
        masked = not 1 / spec.bound <= r_d <= spec.bound
        if normalizer.kind is Normalization.TOKEN_MEAN:
            share = 1 / batch.loss_tokens
        else:
            share = 1 / (sequences * int(batch.loss_mask[i].sum()))
        if not clipped and not masked:
            grad[i, t] = -share * min(r_d, spec.cap) * r_s * a
    return grad


@pytest.mark.parametrize("kind", list(Normalization))
@pytest.mark.parametrize("seed", range(4))
def test_closed_form_equals_autograd_and_central_differences(seed, kind):
    batch = random_batch(seed)
    g = torch.Generator().manual_seed(seed)
    noise = lambda size: size * torch.randn(batch.token_ids.shape, generator=g, dtype=torch.float64)  # noqa: E731
    batch = dataclasses.replace(batch, old_logprobs=batch.behavior_logprobs + noise(0.15))
    policy = (batch.old_logprobs + noise(0.3)).requires_grad_()
    normalizer = Normalizer.of(kind, batch.loss_mask)

    def value(p: torch.Tensor) -> torch.Tensor:
        inputs = loss_inputs(
            p, batch.old_logprobs, batch.behavior_logprobs, batch.advantages, batch.loss_mask, TOKEN_MASK
        )
        return policy_loss(LossSettings(), inputs, normalizer).loss

    (grad,) = torch.autograd.grad(value(policy), policy)
    expected = closed_form(batch, policy.detach(), LossSettings(), normalizer, TOKEN_MASK)
    torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
    step = 1e-5
    for i, t in torch.nonzero(batch.loss_mask).tolist()[:12]:
        nudge = torch.zeros_like(policy)
        nudge[i, t] = step
        with torch.no_grad():
            difference = (value(policy + nudge) - value(policy - nudge)) / (2 * step)
        assert difference.item() == pytest.approx(expected[i, t].item(), abs=1e-9)


def test_no_staleness_means_masked_importance_weighted_reinforce():
    batch = random_batch(3)
    g = torch.Generator().manual_seed(3)
    old = batch.behavior_logprobs + 0.2 * torch.randn(batch.token_ids.shape, generator=g, dtype=torch.float64)
    policy = old.clone().requires_grad_()
    inputs = loss_inputs(policy, old, batch.behavior_logprobs, batch.advantages, batch.loss_mask, TOKEN_MASK)
    out = policy_loss(LossSettings(), inputs, Normalizer.of(Normalization.TOKEN_MEAN, batch.loss_mask))
    assert not out.clipped.any()
    assert (out.log_staleness_ratio == 0).all()
    (grad,) = torch.autograd.grad(out.loss, policy)
    r_d = (old - batch.behavior_logprobs).exp()
    kept = batch.loss_mask & (r_d >= 0.8) & (r_d <= 1.25)
    expected = -torch.where(kept, r_d * batch.advantages, 0.0) / batch.loss_tokens
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)


def test_no_discrepancy_means_plain_ppo_with_exact_old():
    batch = random_batch(4)
    g = torch.Generator().manual_seed(4)
    policy = (
        batch.behavior_logprobs + 0.4 * torch.randn(batch.token_ids.shape, generator=g, dtype=torch.float64)
    ).requires_grad_()
    results = []
    for spec in (TOKEN_MASK, NO_CONTROL):
        inputs = loss_inputs(
            policy, batch.behavior_logprobs, batch.behavior_logprobs, batch.advantages, batch.loss_mask, spec
        )
        assert (inputs.correction.mask == batch.loss_mask).all()
        out = policy_loss(LossSettings(), inputs, Normalizer.of(Normalization.TOKEN_MEAN, batch.loss_mask))
        results.append((out.loss.item(), torch.autograd.grad(out.loss, policy)[0]))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


# --- variants --------------------------------------------------------------------------------------------------------------
# -d loss / d log pi of two tokens of one sequence (ratios s, advantage A for both; clip 0.2, dual clip 3, one token as the unit). One row
# per loss; a new loss needs its own. GSPO's ratio is the geometric mean of the two: 0.9818, 1.6432, 0.6 and 3.0463.
CASES = (((0.81, 1.19), 1.0), ((0.9, 3.0), 1.0), ((0.4, 0.9), -1.0), ((3.2, 2.9), -1.0))
EXPECTED: dict[Loss, tuple[tuple[float, float], ...]] = {
    Loss.PPO: ((0.81, 1.19), (0.9, 0.0), (0.0, -0.9), (0.0, -2.9)),
    Loss.GSPO: ((0.9818, 0.9818), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
    Loss.CISPO: ((0.81, 1.19), (0.9, 1.2), (-0.8, -0.9), (-1.2, -1.2)),
    Loss.DOUBLE_SIDED: ((0.81, 1.19), (0.9, 0.0), (0.0, -0.9), (0.0, 0.0)),
}


def test_every_loss_of_the_api_is_in_the_table():
    assert set(EXPECTED) == set(Loss)


@pytest.mark.parametrize("loss", list(Loss))
def test_every_loss_gives_the_gradients_of_the_table(loss):
    for (ratios, advantage), expected in zip(CASES, EXPECTED[loss], strict=True):
        policy = (row(*ratios).log() - 1.0).requires_grad_()
        inputs = loss_inputs(policy, row(-1.0, -1.0), row(-1.0, -1.0), row(advantage, advantage))
        (grad,) = torch.autograd.grad(policy_loss(LossSettings(loss=loss), inputs, UNIT).loss, policy)
        assert (-grad[0]).tolist() == pytest.approx(list(expected), abs=1e-4), (ratios, advantage)


def test_cispo_keeps_a_capped_gradient_and_double_sided_zeroes_it():
    for ratio, cispo, double_sided in [(1.1, 1.1, 1.1), (1.5, 1.2, 0.0), (0.5, 0.8, 0.0)]:
        for advantage in (1.0, -1.0):
            assert gradient(LossSettings(loss=Loss.CISPO), ratio, advantage) == pytest.approx(cispo * advantage)
            assert gradient(LossSettings(loss=Loss.DOUBLE_SIDED), ratio, advantage) == pytest.approx(
                double_sided * advantage
            )


def test_variants_agree_inside_the_range():
    for loss in Loss:
        assert gradient(LossSettings(loss=loss), 1.15, -0.7) == pytest.approx(1.15 * -0.7)


def test_gspo_of_one_token_is_token_ppo():
    for ratio in (0.5, 0.79, 0.9, 1.1, 1.21, 2.0, 3.5):
        for advantage in (1.0, -1.0):
            assert gradient(LossSettings(loss=Loss.GSPO), ratio, advantage) == gradient(
                LossSettings(), ratio, advantage
            )


def test_gspo_clips_whole_sequences_by_their_mean_log_ratio():
    logs = torch.tensor([[0.5, -0.3, 9.0], [0.5, 0.4, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]] * 2)
    policy = (logs - 1.0).requires_grad_()
    old = torch.full_like(logs, -1.0)
    inputs = loss_inputs(policy, old, old, torch.ones_like(logs), mask)
    out = policy_loss(LossSettings(loss=Loss.GSPO), inputs, UNIT)
    assert out.clipped_high.tolist() == [[False] * 3, [True, True, False]]
    (grad,) = torch.autograd.grad(out.loss, policy)
    expected = torch.tensor(0.1, dtype=torch.float64).exp().item()
    assert grad[0].tolist() == pytest.approx([-expected, -expected, 0.0])
    assert grad[1].abs().sum() == 0


# --- normaliser, terms, robustness -----------------------------------------------------------------------------------------
def test_normalisers_count_before_any_mask():
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    token = Normalizer.of(Normalization.TOKEN_MEAN, mask)
    assert (token.tokens, token.sequences) == (3, 2)
    assert token.weights(mask).sum().item() == pytest.approx(1.0)
    sequence = Normalizer.of(Normalization.SEQUENCE_MEAN, mask)
    assert sequence.weights(mask).tolist() == [[0.25, 0.25, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    parts = [Normalizer.of(Normalization.SEQUENCE_MEAN, mask[i : i + 1]) for i in range(3)]
    assert parts[0] + parts[1] + parts[2] == sequence


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**5),
    budget=st.integers(1, 60),
    kind=st.sampled_from(list(Normalization)),
    loss=st.sampled_from(list(Loss)),
)
def test_splitting_into_micro_batches_changes_nothing(seed, budget, kind, loss):
    batch = random_batch(seed)
    g = torch.Generator().manual_seed(seed)
    noise = [0.3 * torch.randn(batch.token_ids.shape, generator=g, dtype=torch.float64) for _ in range(3)]
    batch = dataclasses.replace(batch, old_logprobs=batch.behavior_logprobs + 0.5 * noise[0])
    policy = (batch.old_logprobs + noise[1]).requires_grad_()
    entropy, reference = noise[2].abs(), batch.behavior_logprobs + 0.1 * noise[2]
    config = LossSettings(loss=loss, entropy_coefficient=0.01, kl_coefficient=0.02)
    normalizer = Normalizer.of(kind, batch.loss_mask)

    def of(part: TokenBatch, rows: torch.Tensor) -> torch.Tensor:
        width = part.token_ids.shape[1]
        inputs = dataclasses.replace(
            loss_inputs(
                policy[rows, :width],
                part.old_logprobs,
                part.behavior_logprobs,
                part.advantages,
                part.loss_mask,
                TOKEN_MASK,
            ),
            entropy=entropy[rows, :width],
            reference_logprobs=reference[rows, :width],
        )
        return policy_loss(config, inputs, normalizer).loss

    whole = of(batch, torch.arange(batch.token_ids.shape[0]))
    split = sum(of(part.batch, part.rows) for part in micro_batches(batch, budget))
    assert split.item() == pytest.approx(whole.item(), abs=1e-12)
    a, b = (torch.autograd.grad(each, policy)[0] for each in (whole, split))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_packed_equals_padded():
    """One long row of all loss tokens gives the padded batch's loss (token-level control and normaliser)."""
    batch = random_batch(8)
    old = batch.behavior_logprobs + 0.1
    policy = old + 0.15
    normalizer = Normalizer.of(Normalization.TOKEN_MEAN, batch.loss_mask)
    padded = policy_loss(
        LossSettings(),
        loss_inputs(policy, old, batch.behavior_logprobs, batch.advantages, batch.loss_mask, TOKEN_MASK),
        normalizer,
    )
    pick = lambda tensor: tensor[batch.loss_mask][None]  # noqa: E731
    packed = policy_loss(
        LossSettings(),
        loss_inputs(pick(policy), pick(old), pick(batch.behavior_logprobs), pick(batch.advantages), spec=TOKEN_MASK),
        normalizer,
    )
    assert packed.loss.item() == pytest.approx(padded.loss.item(), abs=1e-14)


def test_a_fully_masked_batch_has_no_loss_and_a_finite_gradient():
    policy = row(-1.0, -2.0).requires_grad_()
    old = row(-9.0, -9.0)
    inputs = loss_inputs(policy, old, row(-1.0, -1.0), row(1.0, -1.0), spec=TOKEN_MASK)
    out = policy_loss(LossSettings(), inputs, UNIT)
    (grad,) = torch.autograd.grad(out.loss, policy)
    assert out.loss.item() == 0
    assert grad.abs().sum() == 0


def test_an_empty_loss_mask_gives_zero():
    policy = row(-1.0).requires_grad_()
    mask = torch.zeros(1, 1, dtype=torch.bool)
    inputs = loss_inputs(policy, row(float("nan")), row(float("nan")), row(0.0), mask, TOKEN_MASK)
    out = policy_loss(LossSettings(), inputs, Normalizer.of(Normalization.TOKEN_MEAN, mask))
    out.loss.backward()
    assert out.loss.item() == 0
    assert policy.grad.item() == 0


def test_entropy_and_kl_terms():
    policy = row(-1.0, -2.0).requires_grad_()
    inputs = LossInputs(
        **vars(loss_inputs(policy, row(-1.0, -2.0), row(-1.0, -2.0), row(0.0, 0.0)))
        | {"entropy": row(0.5, 1.5), "reference_logprobs": row(-1.5, -2.0)}
    )
    both = Normalizer(Normalization.TOKEN_MEAN, tokens=2, sequences=1)
    out = policy_loss(LossSettings(entropy_coefficient=0.1, kl_coefficient=0.2), inputs, both)
    k3 = torch.tensor(-0.5).exp().item() + 0.5 - 1
    assert out.entropy.item() == pytest.approx(1.0)
    assert out.kl.item() == pytest.approx(k3 / 2, rel=1e-6)
    assert out.loss.item() == pytest.approx(-0.1 * 1.0 + 0.2 * k3 / 2, rel=1e-6)
    (grad,) = torch.autograd.grad(out.loss, policy)
    assert grad[0].tolist() == pytest.approx([0.2 / 2 * (1 - torch.tensor(-0.5).exp().item()), 0.0], rel=1e-6)


def low_var_kl(reference: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
    """verl's `kl_penalty_forward(..., "low_var_kl")` (verl 0.9, core_algos.py), written from its description: one clamp of the difference
    before both terms, one of the result."""
    difference = torch.clamp(reference - policy, min=-20, max=20)
    return torch.clamp(torch.exp(difference) - difference - 1, min=-10, max=10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_k3_is_the_fields(dtype):
    apart = torch.cat([torch.linspace(-40, 40, 401), torch.tensor([2.6, 2.66, 2.7, 19.9, 20.1, 21.0])]).to(dtype)[None]
    values, gradients = [], []
    for formula in (
        low_var_kl,
        lambda reference, policy: kl_k3(reference, policy, torch.ones_like(policy, dtype=torch.bool)),
    ):
        policy = torch.full_like(apart, -3.0).requires_grad_()
        value = formula(policy.detach() + apart, policy)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value.sum(), policy)[0])
    torch.testing.assert_close(values[1], values[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-6)


def test_k3_pushes_towards_the_reference_or_not_at_all():
    """d k3 / d log pi = 1 - e^d: negative (raise the log-prob) where the reference thinks more of the token; 0 beyond either bound."""
    apart = row(-25.0, -9.0, -1.0, 0.0, 1.0, 2.6, 3.0, 19.0, 21.0)
    policy = torch.full_like(apart, -2.0).requires_grad_()
    mask = torch.ones_like(apart, dtype=torch.bool)
    value = kl_k3(policy.detach() + apart, policy, mask)
    (gradient,) = torch.autograd.grad(value.sum(), policy)
    assert torch.sign(gradient)[0].tolist() == [0, 1, 1, 0, -1, -1, 0, 0, 0]
    assert value.max().item() == 10.0
    assert gradient.abs().max().item() < 13.0


def test_a_coefficient_without_its_tensor_is_refused():
    inputs = loss_inputs(row(-1.0), row(-1.0), row(-1.0), row(1.0))
    with pytest.raises(ValueError, match="entropy"):
        policy_loss(LossSettings(entropy_coefficient=0.1), inputs, UNIT)
    with pytest.raises(ValueError, match="reference_logprobs"):
        policy_loss(LossSettings(kl_coefficient=0.1), inputs, UNIT)


def test_settings_come_from_the_manifest():
    spec = AlgorithmSpec(updates=1, loss=Loss.GSPO, clip_low=0.1, clip_high=0.3, dual_clip=None, kl_coefficient=0.5)
    assert LossSettings.of(spec) == LossSettings(Loss.GSPO, 0.1, 0.3, None, 0.0, 0.5)
