"""The canonical hash of a set of named tensors. Owns what "the same weights" means; does not own files.

One function for everybody (learner, engines, scorers), so that equal hashes mean equal names, dtypes, shapes and bytes:

    H = sha256( for each name in sorted order:  "name|dtype|shape|" + sha256(bytes) + "\n" )

where bytes are the elements in row-major order, little-endian. Hashing each tensor on its own lets the tensors be hashed in
parallel (hashlib lets go of the interpreter's lock) without changing the result.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

PARALLEL_BYTES = 1 << 24
MOST_THREADS = 8


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """64 hex digits naming `tensors`, whatever their order, device or strides.

    Tensors may be of any dtype that has a byte representation; they are read, not changed.
    """
    names = sorted(tensors)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total >= PARALLEL_BYTES and len(names) > 1:
        with ThreadPoolExecutor(MOST_THREADS) as pool:
            digests = list(pool.map(lambda name: _content(tensors[name]), names))
    else:
        digests = [_content(tensors[name]) for name in names]
    h = hashlib.sha256()
    for name, digest in zip(names, digests, strict=True):
        tensor = tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = "x".join(str(size) for size in tensor.shape)
        h.update(f"{name}|{dtype}|{shape}|".encode())
        h.update(digest)
        h.update(b"\n")
    return h.hexdigest()


def _content(tensor: torch.Tensor) -> bytes:
    if tensor.numel() == 0:
        return hashlib.sha256().digest()
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()
