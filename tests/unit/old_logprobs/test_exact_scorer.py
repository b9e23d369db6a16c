"""Scoring leaves no trace, and gives the model's own log-probs."""

import pytest
import torch
from tests.unit.algorithm.builders import VOCABULARY, tiny_model
from tests.unit.old_logprobs.builders import FORWARD

from asyncppo_runtime.old_logprobs.exact_scorer import ScoreRequest, score
from asyncppo_runtime.old_logprobs.interface import ForwardSettings
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash

IDS = [torch.randint(0, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (12, 7, 9)]
REQUESTS = [
    ScoreRequest(IDS[0], [(2, 4), (8, 11)]),
    ScoreRequest(IDS[1], []),
    ScoreRequest(IDS[1], [(1, 7)]),
    ScoreRequest(IDS[2], [(5, 6), (3, 5)]),
]


def reference(model, ids, start, end):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0] / FORWARD.temperature
    return torch.log_softmax(logits, -1)[torch.arange(start - 1, end - 1), torch.tensor(ids[start:end])]


@pytest.mark.parametrize("budget", [1, 20, 1000])
def test_spans_in_the_order_asked_for(budget):
    model = tiny_model()
    answers = score(model, REQUESTS, ForwardSettings(FORWARD.temperature, budget))
    assert [len(spans) for spans in answers] == [2, 0, 1, 2]
    for request, spans in zip(REQUESTS, answers, strict=True):
        for (start, end), found in zip(request.spans, spans, strict=True):
            torch.testing.assert_close(found, reference(model, request.token_ids, start, end), rtol=0, atol=1e-9)


def test_tokens_after_the_last_span_change_nothing():
    model = tiny_model()
    cut = score(model, [ScoreRequest(IDS[0][:8], [(3, 5)])], FORWARD)[0][0]
    whole = score(model, [ScoreRequest(IDS[0], [(3, 5)])], FORWARD)[0][0]
    assert torch.equal(cut, whole)


def test_nothing_asked_nothing_done():
    assert score(tiny_model(), [], FORWARD) == []
    assert score(tiny_model(), [ScoreRequest(IDS[0], [])], FORWARD) == [[]]


def test_scoring_leaves_no_trace():
    model = tiny_model()
    model.train()
    model.model.layers[0].eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.tensor([IDS[0]])).logits.sum().backward()
    optimizer.step()

    def trace():
        return (
            tensors_hash(policy_tensors(model)),
            {name: buffer.clone() for name, buffer in model.named_buffers()},
            torch.get_rng_state(),
            [t.clone() for state in optimizer.state.values() for t in state.values()],
            {name: module.training for name, module in model.named_modules()},
            {name: parameter.grad.clone() for name, parameter in model.named_parameters()},
            torch.is_grad_enabled(),
        )

    before = trace()
    score(model, REQUESTS, FORWARD)
    after = trace()
    assert before[0] == after[0]
    for a, b in zip(before[1].values(), after[1].values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(before[2], after[2])
    assert len(before[3]) == len(after[3]) > 0
    for a, b in zip(before[3], after[3], strict=True):
        assert torch.equal(a, b)
    assert before[4] == after[4]
    for a, b in zip(before[5].values(), after[5].values(), strict=True):
        assert torch.equal(a, b)
    assert before[6] == after[6]


def test_dropout_is_off_while_scoring_and_modes_come_back_after_an_error():
    model = tiny_model()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    found = [score(model, REQUESTS[:1], FORWARD)[0][0] for _ in range(2)]
    assert torch.equal(*found)
    with pytest.raises(IndexError):
        score(model, [ScoreRequest([VOCABULARY + 5, 1, 2], [(1, 3)])], FORWARD)
    assert model.training
    assert torch.is_grad_enabled()
