"""Tokens sampled after a swap belong to the new version only if the prefix was computed anew."""

import torch
from tests.unit.old_logprobs.builders import Versions

PROMPT = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
VERSIONS = Versions.of([1, 2])


def continued(prefix_version: int, tokens: list[int]) -> torch.Tensor:
    """Log-probs version 2 gives `tokens` one by one, on KV of the prompt that `prefix_version` computed."""
    with torch.no_grad():
        cache = VERSIONS.models[prefix_version](PROMPT[:, :-1], use_cache=True).past_key_values
        current, found = PROMPT[:, -1:], []
        for token in tokens:
            logits = VERSIONS.models[2](current, past_key_values=cache, use_cache=True).logits[0, -1]
            found.append(torch.log_softmax(logits, -1)[token])
            current = torch.tensor([[token]])
    return torch.stack(found)


def full_forward(tokens: list[int]) -> torch.Tensor:
    ids = torch.cat([PROMPT, torch.tensor([tokens])], 1)
    with torch.no_grad():
        logprobs = torch.log_softmax(VERSIONS.models[2](ids).logits[0], -1)
    start = PROMPT.shape[1]
    return torch.stack([logprobs[start - 1 + i, token] for i, token in enumerate(tokens)])


TOKENS = [7, 0, 31, 12, 12]


def test_recomputed_prefix_gives_the_versions_own_log_probs():
    torch.testing.assert_close(continued(2, TOKENS), full_forward(TOKENS), rtol=0, atol=1e-9)


def test_kept_prefix_of_another_version_is_no_versions_policy():
    """The documented negative: reusing KV across a swap pollutes the discrepancy even with exact old log-probs."""
    assert ((continued(1, TOKENS) - full_forward(TOKENS)).abs() > 1e-4).all()
