"""The canonical hash: equal exactly when names, dtypes, shapes and bytes are."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.weights.builders import tensors

from asyncppo_runtime.weights import hashing
from asyncppo_runtime.weights.hashing import tensors_hash

NAMES = st.text(min_size=1, max_size=6)
SHAPES = st.lists(st.integers(0, 3), max_size=3)


def test_the_hash_is_what_the_docstring_says() -> None:
    import hashlib

    one = torch.tensor([[1.0, 2.0]])
    content = hashlib.sha256(one.numpy().tobytes()).digest()
    expected = hashlib.sha256(b"w|float32|1x2|" + content + b"\n").hexdigest()
    assert tensors_hash({"w": one}) == expected


@given(st.dictionaries(NAMES, SHAPES, max_size=5), st.randoms())
def test_order_strides_and_gradients_do_not_matter(shapes: dict[str, list[int]], chance) -> None:  # type: ignore[no-untyped-def]
    base = {name: torch.rand(shape) for name, shape in shapes.items()}
    shuffled = list(base.items())
    chance.shuffle(shuffled)
    other = {
        name: one.t().contiguous().t() if one.dim() == 2 else one.clone().requires_grad_() for name, one in shuffled
    }
    assert tensors_hash(other) == tensors_hash(base)


def test_every_difference_changes_the_hash() -> None:
    base = tensors()
    changed = [
        base | {"scale": base["scale"] + 1e-6},
        base | {"scale": base["scale"].double()},
        base | {"scale": base["scale"].reshape(1)},
        base | {"embed.weight": base["embed.weight"].reshape(8, 64)},
        base | {"more": torch.zeros(0)},
        {name: one for name, one in base.items() if name != "steps"},
        {name.replace("0", "1"): one for name, one in base.items()},
        base | {"embed.weight": base["embed.weight"].flip(0)},
        base | {"layer.0.bias": -base["layer.0.bias"]},
    ]
    hashes = [tensors_hash(one) for one in (base, *changed)]
    assert len(set(hashes)) == len(hashes)
    assert all(len(digest) == 64 for digest in hashes)


def test_the_parallel_form_is_the_same_hash(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    base = tensors()
    alone = tensors_hash(base)
    monkeypatch.setattr(hashing, "PARALLEL_BYTES", 0)
    assert tensors_hash(base) == alone


def test_bfloat16_and_bool_are_hashed() -> None:
    assert tensors_hash({"a": torch.ones(3, dtype=torch.bfloat16)}) != tensors_hash(
        {"a": torch.ones(3, dtype=torch.float16)}
    )
    assert tensors_hash({"a": torch.ones(3, dtype=torch.bool)}) != tensors_hash({"a": torch.zeros(3, dtype=torch.bool)})
