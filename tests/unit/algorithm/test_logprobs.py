"""The kernel against the plain form, and the alignment of a model's log-probs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import VOCABULARY, tiny_model
from torch import nn

from asyncppo_runtime.algorithm import vocabulary
from asyncppo_runtime.algorithm.errors import UnsupportedModelError
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.algorithm.vocabulary import logits_logprobs, token_logprobs


def operands(tokens=13, hidden=8, words=500, seed=0, dtype=torch.float64, bias=True):
    g = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(tokens, hidden, generator=g),
        torch.randn(words, hidden, generator=g),
        torch.randn(words, generator=g),
    ]
    h, w, b = (t.to(dtype).requires_grad_() for t in tensors)
    return h, w, b if bias else None, torch.randint(0, words, (tokens,), generator=g)


@settings(max_examples=40)
@given(
    tokens=st.integers(1, 17),
    words=st.integers(2, 700),
    tile=st.sampled_from([64, 1000, 1 << 20]),
    rows=st.sampled_from([1, 5, 64]),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    entropy=st.booleans(),
    bias=st.booleans(),
    kept=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 1000),
)
def test_chunked_equals_plain_in_value_and_gradient(tokens, words, tile, rows, temperature, entropy, bias, kept, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "TILE_ELEMENTS", tile)
        patch.setattr(vocabulary, "ROW_BLOCK", rows)
        h, w, b, ids = operands(tokens, 6, words, seed, bias=bias)
        g = torch.randn(2, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        wanted = [t for t in (h, w, b) if t is not None]
        results = []
        for chunked in (False, True):
            out = token_logprobs(
                h, w, ids, temperature, bias=b, with_entropy=entropy, chunked=chunked, kept_fraction=kept
            )
            total = (out.logprobs * g[0]).sum() + ((out.entropy * g[1]).sum() if out.entropy is not None else 0)
            assert (out.entropy is not None) == entropy
            results.append([out.logprobs.detach(), *torch.autograd.grad(total, wanted)])
        for plain, tiled in zip(*results, strict=True):
            torch.testing.assert_close(tiled, plain, rtol=1e-9, atol=1e-10)


def test_gradient_against_central_differences(monkeypatch):
    monkeypatch.setattr(vocabulary, "TILE_ELEMENTS", 64)
    h, w, b, ids = operands(4, 3, 300)

    def logprobs(h, w, b):
        return token_logprobs(h, w, ids, 0.8, bias=b, chunked=True).logprobs

    def entropy(h, w, b):
        return token_logprobs(h, w, ids, 0.8, bias=b, chunked=True, with_entropy=True).entropy

    assert torch.autograd.gradcheck(logprobs, (h, w, b), fast_mode=True)
    assert torch.autograd.gradcheck(entropy, (h, w, b), fast_mode=True)


def test_entropy_of_a_uniform_and_of_a_certain_distribution():
    weight = torch.zeros(9000, 2, dtype=torch.float64)
    hidden = torch.ones(1, 2, dtype=torch.float64)
    uniform = token_logprobs(hidden, weight, torch.tensor([5]), with_entropy=True)
    assert uniform.entropy.item() == pytest.approx(torch.log(torch.tensor(9000.0)).item(), abs=1e-6)
    assert uniform.logprobs.item() == pytest.approx(-uniform.entropy.item())
    weight[8999] = 500.0
    certain = token_logprobs(hidden, weight, torch.tensor([8999]), with_entropy=True)
    assert certain.logprobs.item() == 0.0
    assert certain.entropy.item() == pytest.approx(0.0, abs=1e-12)


def test_large_logits_do_not_overflow_in_float32():
    h, w, _, ids = operands(5, 4, 400, dtype=torch.float32)
    out = token_logprobs(h.detach() * 300, w.detach() * 300, ids, chunked=True, with_entropy=True)
    assert torch.isfinite(out.logprobs).all()
    assert torch.isfinite(out.entropy).all()
    plain = logits_logprobs((h.detach() * 300) @ (w.detach() * 300).T, ids)
    torch.testing.assert_close(out.logprobs, plain.logprobs)


def test_no_tokens_at_all():
    h, w, _, _ = operands(3, 4, 50)
    empty = token_logprobs(h[:0], w, torch.zeros(0, dtype=torch.int64), chunked=True, with_entropy=True)
    assert empty.logprobs.shape == (0,)
    (gradient,) = torch.autograd.grad(empty.logprobs.sum(), [w])
    assert gradient.abs().sum() == 0


@pytest.mark.parametrize("entropy", [False, True])
def test_no_tokens_give_a_gradient_of_zeros_in_any_precision(entropy):
    for dtype in (torch.bfloat16, torch.float32):
        h, w, _, ids = operands(tokens=0, words=9000, dtype=dtype)
        found = token_logprobs(h, w, ids, with_entropy=entropy)
        assert torch.equal(torch.autograd.grad(found.logprobs.sum(), w)[0], torch.zeros_like(w))


def test_gradients_of_confident_tokens_keep_the_accuracy_of_sixteen_bit():
    def error(chunked):
        h, w, _, ids = operands(tokens=32, hidden=64, words=2000, dtype=torch.bfloat16, bias=False)
        h = (0.2 * h + 0.35 * w[ids]).detach().requires_grad_()
        exact = [t.detach().double().requires_grad_() for t in (h, w)]
        truth = torch.autograd.grad(token_logprobs(*exact, ids, chunked=False).logprobs.sum(), exact)
        made = torch.autograd.grad(token_logprobs(h, w, ids, chunked=chunked).logprobs.sum(), (h, w))
        return [float((a.double() - b).norm() / b.norm()) for a, b in zip(made, truth, strict=True)]

    for kernel, plain in zip(error(True), error(False), strict=True):
        assert kernel < 2 * plain


def test_sixteen_bit_weights_give_float32_log_probs():
    h, w, _, ids = operands(6, 16, 900, dtype=torch.bfloat16)
    for chunked in (False, True):
        out = token_logprobs(h, w, ids, chunked=chunked)
        assert out.logprobs.dtype == torch.float32
        gradients = torch.autograd.grad(out.logprobs.sum(), [h, w])
        assert all(gradient.dtype == torch.bfloat16 for gradient in gradients)
    exact = token_logprobs(h.double(), w.double(), ids, chunked=True).logprobs
    assert (out.logprobs - exact).abs().max() < 0.1


def test_the_graph_survives_a_second_backward():
    h, w, b, ids = operands()
    out = token_logprobs(h, w, ids, bias=b, chunked=True, kept_fraction=1.0).logprobs.sum()
    first = torch.autograd.grad(out, [h, w], retain_graph=True)
    second = torch.autograd.grad(out, [h, w])
    for a, c in zip(first, second, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-12, atol=1e-12)


# --- a model's log-probs -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tied", [False, True])
def test_forward_is_aligned_and_ignores_padding(tied):
    model = tiny_model(tied=tied)
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (3, 9), generator=g)
    lengths = torch.tensor([9, 4, 1])
    out = forward_logprobs(model, ids, lengths, temperature=0.7, with_entropy=True)
    assert out.logprobs.shape == out.entropy.shape == (3, 9)
    for row, length in enumerate(lengths.tolist()):
        logits = model(ids[row : row + 1, :length]).logits[0] / 0.7
        expected = torch.log_softmax(logits[:-1], -1).gather(-1, ids[row, 1:length, None]).squeeze(-1)
        torch.testing.assert_close(out.logprobs[row, 1:length], expected, rtol=0, atol=1e-9)
        distribution = torch.log_softmax(logits[:-1], -1)
        entropy = -(distribution.exp() * distribution).sum(-1)
        torch.testing.assert_close(out.entropy[row, 1:length], entropy, rtol=0, atol=1e-9)
        assert out.logprobs[row, 0] == 0
        assert out.logprobs[row, length:].abs().sum() == 0


def test_padding_tokens_change_nothing():
    model = tiny_model()
    ids = torch.randint(0, VOCABULARY, (2, 8), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([8, 5])
    other = ids.clone()
    other[1, 5:] = (other[1, 5:] + 1) % VOCABULARY
    torch.testing.assert_close(
        forward_logprobs(model, ids, lengths).logprobs,
        forward_logprobs(model, other, lengths).logprobs,
        rtol=0,
        atol=1e-12,
    )


def test_only_the_masked_positions_are_computed_and_get_gradient():
    model = tiny_model()
    ids = torch.randint(0, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([7, 6])
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[0, 2:4] = True
    mask[1, 5] = True
    whole = forward_logprobs(model, ids, lengths).logprobs
    part = forward_logprobs(model, ids, lengths, mask=mask).logprobs
    torch.testing.assert_close(part, torch.where(mask, whole, 0.0), rtol=0, atol=1e-12)
    (from_part,) = torch.autograd.grad(part.sum(), [model.lm_head.weight])
    (from_whole,) = torch.autograd.grad(whole[mask].sum(), [model.lm_head.weight])
    torch.testing.assert_close(from_part, from_whole, rtol=1e-9, atol=1e-12)


def test_a_mask_that_reaches_into_the_padding_is_cut():
    model = tiny_model()
    out = forward_logprobs(
        model, torch.ones(1, 6, dtype=torch.int64), torch.tensor([4]), mask=torch.ones(1, 6, dtype=torch.bool)
    )
    assert (out.logprobs[0, 1:4] != 0).all()
    assert out.logprobs[0, 4:].abs().sum() == 0


def test_bfloat16_model_gives_float32_log_probs():
    out = forward_logprobs(tiny_model(dtype=torch.bfloat16), torch.ones(1, 4, dtype=torch.int64), torch.tensor([4]))
    assert out.logprobs.dtype == torch.float32


def test_models_that_bend_their_logits_use_their_own_forward():
    from transformers import CohereConfig, CohereForCausalLM

    config = CohereConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, logit_scale=0.25, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = CohereForCausalLM(config).double().eval()
    ids = torch.randint(0, 16, (1, 6))
    expected = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(-1, ids[0, 1:, None]).squeeze(-1)
    torch.testing.assert_close(
        forward_logprobs(model, ids, torch.tensor([6])).logprobs[0, 1:], expected, rtol=0, atol=1e-9
    )


def test_a_model_without_output_embedding_is_refused():
    with pytest.raises(UnsupportedModelError, match="causal LM"):
        forward_logprobs(nn.Linear(2, 2), torch.ones(1, 2, dtype=torch.int64), torch.tensor([2]))
