"""Exact old log-probs of a batch that holds several versions: one prefix forward per distinct version, gathered by version tag.

Owns the gather. Does not own the weights (`hold`), nor the check of identities (`verify`), which needs more than tags.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.old_logprobs.exact_scorer import prefix_logprobs
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, HeldVersion

Hold = Callable[[int], AbstractContextManager[HeldVersion]]


@dataclass(frozen=True)
class Gathered:
    """batch: with old log-probs and the versions that made them. forward_tokens: version → tokens its forwards took."""

    batch: TokenBatch
    forward_tokens: dict[int, int] = field(default_factory=dict)


def gather_versions(batch: TokenBatch, hold: Hold, forward: ForwardSettings) -> Gathered:
    """Fill the old log-probs of every loss token that has none: old[t] = log pi_v[t] with v the token's version.

    hold(v) lends a model with the weights of v. A trajectory of k versions takes k forwards, that of v only up to its last own token, so
    the forwards take sum over (trajectory, v) of that position. old_version_used is what the lender says it holds, never the tag.
    """
    missing = batch.loss_mask & torch.isnan(batch.old_logprobs)
    old, used = batch.old_logprobs.clone(), batch.old_version_used.clone()
    forward_tokens: dict[int, int] = {}
    for version in batch.versions():
        own = missing & (batch.policy_version == version)
        if not own.any():
            continue
        with hold(version) as held:
            logprobs, forward_tokens[version] = prefix_logprobs(held.model, batch, own, forward)
            used[own] = held.version
        old[own] = logprobs[own]
    return Gathered(batch.with_old(old, used), forward_tokens)
