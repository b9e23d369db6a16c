"""The published form: a pure cast into memory of its own."""

import torch
from tests.unit.weights.builders import tensors

from asyncppo.api.training import Precision
from asyncppo_runtime.weights.cast import published_form
from asyncppo_runtime.weights.hashing import tensors_hash


def test_floating_tensors_are_cast_and_others_are_not() -> None:
    cast = published_form(tensors(), Precision.BFLOAT16)
    assert {name: one.dtype for name, one in cast.items()} == {
        "embed.weight": torch.bfloat16,
        "layer.0.bias": torch.bfloat16,
        "scale": torch.bfloat16,
        "steps": torch.int64,
    }
    assert torch.equal(cast["scale"], tensors()["scale"].bfloat16())


def test_the_same_precision_keeps_every_bit_but_not_the_memory() -> None:
    train = {name: one.clone().requires_grad_(one.is_floating_point()) for name, one in tensors().items()}
    cast = published_form(train, Precision.FLOAT32)
    before = tensors_hash(cast)
    assert before == tensors_hash(train)
    with torch.no_grad():
        train["embed.weight"].add_(1.0)
    assert tensors_hash(cast) == before
    assert not any(one.requires_grad for one in cast.values())


def test_it_is_a_function_of_the_values_alone() -> None:
    wide = published_form(tensors(), Precision.FLOAT64)
    assert tensors_hash(published_form(wide, Precision.FLOAT32)) == tensors_hash(tensors())
    turned = {"w": torch.arange(6.0).reshape(2, 3).t()}
    assert published_form(turned, Precision.FLOAT32)["w"].is_contiguous()
