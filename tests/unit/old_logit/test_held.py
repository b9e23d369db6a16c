"""A worker knows what it holds by the hash of its own parameters; a file that is not the version's is refused, and nothing is held then."""

from pathlib import Path

import pytest
import torch
from tests.unit.api.builders import spec as make_spec

from asyncppo.wire.old_logits import SegmentWork
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.old_logit.held import NOTHING, HeldModel
from asyncppo_runtime.old_logprobs.errors import HeldWeightsError
from asyncppo_runtime.policy import build_model, policy_tensors, torch_dtype
from asyncppo_runtime.weights.errors import WeightsError
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore

SPEC = make_spec(
    {
        "oldLogits.strategy": "Dedicated",
        "oldLogit.replicas": 1,
        "model.builtin": {"hiddenSize": 16, "layers": 1, "heads": 2},
    }
)


def version_file(tmp_path: Path, version: int, scale: float = 1.0) -> tuple[Path, VersionRecord, torch.nn.Module]:
    model = build_model(SPEC, version, torch_dtype(SPEC.optimizer.precision))
    with torch.no_grad():
        for tensor in policy_tensors(model).values():
            if tensor.is_floating_point():
                tensor.mul_(scale)
    stored = WeightStore(tmp_path).publish(version, policy_tensors(model))
    digest = tensors_hash(policy_tensors(model))
    record = VersionRecord(
        version=version,
        parent=-1,
        lineage=0,
        train_hash=digest,
        published_hash=digest,
        file_size=stored.size,
        file_sha256=stored.sha256,
    )
    return stored.path, record, model


def work(lease: int, start: int, end: int) -> SegmentWork:
    return SegmentWork(lease, 0, "digest", start, end, [1 + (lease + position) % 7 for position in range(end)])


def test_scores_are_those_of_a_plain_forward(tmp_path: Path) -> None:
    path, record, model = version_file(tmp_path, 3)
    held = HeldModel(SPEC)
    held.load(path, record)
    assert (held.version, held.train_hash) == (3, record.train_hash)
    segments = [work(1, 2, 5), work(2, 1, 9)]
    for segment, found in held.score(segments):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([segment.token_ids])).logits[0].double() / SPEC.sampling.temperature
        expected = [
            float(torch.log_softmax(logits[position - 1], -1)[segment.token_ids[position]])
            for position in range(segment.start, segment.end)
        ]
        assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_another_versions_file_is_refused_and_nothing_is_held(tmp_path: Path) -> None:
    path, record, _ = version_file(tmp_path, 3)
    other, _, _ = version_file(tmp_path / "other", 3, scale=1.5)
    held = HeldModel(SPEC)
    held.load(path, record)
    with pytest.raises(HeldWeightsError, match="hashes to"):
        held.load(other, record)
    assert (held.version, held.train_hash) == (NOTHING, "")


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    _, record, model = version_file(tmp_path, 3)
    tensors = dict(policy_tensors(model))
    store = WeightStore(tmp_path / "other")
    name = next(iter(tensors))
    held = HeldModel(SPEC)
    wider = store.publish(4, tensors | {name: torch.zeros(2, 2)}).path
    with pytest.raises(HeldWeightsError, match="the model's is"):
        held.load(wider, record)
    fewer = store.publish(5, {key: tensor for key, tensor in tensors.items() if key != name}).path
    with pytest.raises(HeldWeightsError, match="another model"):
        held.load(fewer, record)
    narrow = store.publish(6, {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}).path
    with pytest.raises(HeldWeightsError, match="bfloat16"):
        held.load(narrow, record)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path, record, _ = version_file(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError):
        HeldModel(SPEC).load(path, record)
