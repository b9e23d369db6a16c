"""Borrowed weights: really used, and given back whatever happens."""

import pytest
import torch
from tests.unit.algorithm.builders import tiny_model
from tests.unit.old_logprobs.builders import Versions

from asyncppo_runtime.old_logprobs.errors import HeldWeightsError
from asyncppo_runtime.old_logprobs.parameters import borrowed
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash

IDS = torch.tensor([[1, 2, 3, 4]])


@pytest.mark.parametrize("tied", [False, True])
def test_the_model_computes_with_what_it_borrows(tied):
    versions = Versions.of([0, 1], tied=tied)
    model = tiny_model(tied=tied)
    model(IDS).logits.sum().backward()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before, storage = tensors_hash(policy_tensors(model)), [p.data_ptr() for p in model.parameters()]
    gradients = [p.grad for p in model.parameters()]
    with borrowed(model, versions.tensors(1)), torch.no_grad():
        assert torch.equal(model(IDS).logits, versions.models[1](IDS).logits)
        assert tensors_hash(policy_tensors(model)) == versions.hash(1)
    assert tensors_hash(policy_tensors(model)) == before
    assert [p.data_ptr() for p in model.parameters()] == storage
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    optimizer.step()  # it still moves the model's own parameters
    assert tensors_hash(policy_tensors(model)) != before


def test_an_error_inside_gives_them_back():
    versions, model = Versions.of([1]), tiny_model()
    before = tensors_hash(policy_tensors(model))
    with pytest.raises(RuntimeError, match="inside"), borrowed(model, versions.tensors(1)):
        raise RuntimeError("inside")
    assert tensors_hash(policy_tensors(model)) == before


def test_what_does_not_fit_is_refused_and_nothing_is_touched():
    versions, model = Versions.of([1]), tiny_model()
    before = tensors_hash(policy_tensors(model))
    tensors = versions.tensors(1)
    missing = dict(list(tensors.items())[1:])
    with pytest.raises(HeldWeightsError, match="1 names differ"), borrowed(model, missing):
        pass
    bent = tensors | {"lm_head.weight": torch.zeros(3, 3, dtype=torch.float64)}
    with pytest.raises(HeldWeightsError, match=r"lm_head.weight has shape \(3, 3\)"), borrowed(model, bent):
        pass
    assert tensors_hash(policy_tensors(model)) == before


def test_tensors_are_cast_to_the_models_precision():
    versions, model = Versions.of([1], torch.float32), tiny_model(dtype=torch.float64)
    with borrowed(model, versions.tensors(1)):
        assert all(p.dtype == torch.float64 for p in model.parameters())
