"""The exactness oracle: real engine, real trainer, weights swapped in mid-sequence, brute force over a deep copy of every version.

Old log-probs made at the barriers (each segment under the resident version, prefix-truncated, in whatever batch it came) equal the
log-probs that a kept copy of the sampling version gives in one plain forward of the whole trajectory. Recompute's do not.
"""

import asyncio
import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asyncppo.api.job import AsyncPPOJob
from asyncppo.wire.experience import Segment, segment_digest
from asyncppo.wire.old_logits import SegmentWork
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import ScoreItem, SegmentKey
from asyncppo_runtime.old_logit.held import HeldModel
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.rollout.engines.interface import GenerateRequest
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.weights.store import WeightStore

FLOOR_MULTIPLE = 16


@dataclass
class Open:
    """A trajectory being sampled: its ids so far and its segments."""

    token_ids: list[int]
    segments: list[Segment]


def job(precision: str) -> AsyncPPOJob:
    return AsyncPPOJob.model_validate(
        {
            "apiVersion": "asyncppo.io/v1alpha1",
            "kind": "AsyncPPOJob",
            "metadata": {"name": "oracle", "uid": "oracle"},
            "spec": {
                "model": {"builtin": {"hiddenSize": 32, "layers": 2, "heads": 2, "intermediateSize": 64}},
                "environment": {"type": "GuessNumber"},
                "sampling": {"contextLength": 96, "maxTokens": 80, "temperature": 0.8},
                "algorithm": {"updates": 8, "groupSize": 2, "batchGroups": 1},
                "optimizer": {"precision": precision, "learningRate": 0.02},
                "oldLogits": {"strategy": "Interruption"},
                "rollout": {"engine": {"precision": precision}},
            },
        }
    )


def publish(trainer: Trainer, version: int, folder: Path) -> tuple[VersionRecord, Path]:
    exported = trainer.export_version()
    path = folder / f"{version}.safetensors"
    save_file(exported.published, path)
    trainer.published(version)
    record = VersionRecord(
        version=version,
        parent=version - 1,
        lineage=0,
        train_hash=exported.train_hash,
        published_hash=exported.published_hash,
        file_size=path.stat().st_size,
        file_sha256="",
    )
    return record, path


def move(trainer: Trainer, seed: int) -> None:
    """One optimizer step with a gradient of noise: far enough that versions differ visibly."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)
    trainer.step(0, ())


async def sample_until(engine: TorchEngine, opens: list[Open], tokens: int) -> None:
    """Generate all trajectories at once, every other one `tokens` tokens far, and pause while the rest are in mid-sequence."""

    async def one(number: int, trajectory: Open) -> None:
        request = GenerateRequest(
            session=str(number),
            token_ids=list(trajectory.token_ids),
            max_tokens=tokens if number % 2 else 90 - len(trajectory.token_ids),
            stop_token_ids=[],
            temperature=0.8,
            seed=1000 * number + len(trajectory.token_ids),
        )
        result = await engine.generate(request)
        start = len(trajectory.token_ids)
        trajectory.token_ids += result.token_ids
        for span in result.spans:
            trajectory.segments.append(
                Segment(
                    index=len(trajectory.segments),
                    start=start + span.start,
                    end=start + span.end,
                    version=span.version,
                    weights_hash=span.weights_hash,
                    logprobs=result.logprobs[span.start : span.end],
                )
            )

    running = [asyncio.create_task(one(number, trajectory)) for number, trajectory in enumerate(opens)]
    limited = [task for number, task in enumerate(running) if number % 2]
    await asyncio.wait(limited)
    await engine.pause()
    await asyncio.gather(*running)


def items_of(opens: list[Open], version: int) -> list[ScoreItem]:
    return [
        ScoreItem(
            key=SegmentKey(number, segment.index, segment_digest(trajectory.token_ids, segment)),
            group_id=0,
            version=segment.version,
            weights_hash=segment.weights_hash,
            start=segment.start,
            end=segment.end,
            token_ids=trajectory.token_ids[: segment.end],
            behavior_logprobs=np.asarray(segment.logprobs),
        )
        for number, trajectory in enumerate(opens)
        for segment in trajectory.segments
        if segment.version == version and segment.end > segment.start
    ]


def brute_force(model: torch.nn.Module, token_ids: list[int]) -> torch.Tensor:
    """float64 [len]: log-prob of each token at temperature 0.8, one plain forward of one sequence, nothing shared with the product."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([token_ids])).logits[0].double() / 0.8
    chosen = torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(token_ids[1:])[:, None])[:, 0]
    return torch.cat([torch.zeros(1, dtype=torch.float64), chosen])


@pytest.mark.parametrize("precision", ["Float64", "Float32"])
async def test_old_logprobs_equal_brute_force_over_every_kept_version(precision: str, tmp_path: Path) -> None:
    spec = job(precision).spec
    torch.set_num_threads(1)
    trainer, engine = Trainer(spec), TorchEngine(spec)
    await engine.start()
    opens = [Open([0, 3 + number], []) for number in range(6)]
    kept: dict[int, torch.nn.Module] = {}
    records: dict[int, VersionRecord | None] = {}
    old: dict[tuple[int, int], np.ndarray] = {}
    kept_files = WeightStore(tmp_path / "train-side")
    try:
        for version in range(5):
            record, path = publish(trainer, version, tmp_path)
            records[version], kept[version] = record, copy.deepcopy(trainer.model)
            assert await engine.load(path, record) == record.published_hash
            await engine.resume()
            await sample_until(engine, opens, 4)
            items = items_of(opens, version)
            outcome = trainer.score(items, records)
            assert outcome.discarded == {}
            assert outcome.unavailable == []
            assert len(outcome.scores) == len(items)
            for score in outcome.scores:
                assert (score.version, score.train_hash) == (version, record.train_hash)
                old[score.key.lease_id, score.key.index] = np.asarray(score.old_logprobs)
            kept_files.publish(version, policy_tensors(trainer.model))
            move(trainer, version)
    finally:
        await engine.close()

    # Dedicated: another process's model, fed with files in any order. The same call shape, so the same bits.
    worker = HeldModel(spec)
    for version in (3, 0, 4, 2, 1):
        record = records[version]
        assert record is not None
        worker.load(kept_files.open(version), record)
        work = [
            SegmentWork(item.key.lease_id, item.key.index, item.key.digest, item.start, item.end, item.token_ids)
            for item in items_of(opens, version)
        ]
        made = worker.score(work)
        assert len(made) == len(work)
        for segment, found in made:
            assert np.array_equal(found.numpy(), old[segment.lease_id, segment.index])
    assert worker.train_hash == records[1].train_hash  # type: ignore[union-attr]

    spans = [
        {segment.version for segment in trajectory.segments if segment.end > segment.start} for trajectory in opens
    ]
    assert max(len(versions) for versions in spans) >= 3, "no trajectory spans several versions: nothing was tested"
    truth = {
        (number, version): brute_force(kept[version], trajectory.token_ids)
        for number, trajectory in enumerate(opens)
        for version in kept
    }
    # Float32: the floor is what one plain batched forward differs from single-sequence ones, measured here, on these sequences.
    tolerance = 1e-9 if precision == "Float64" else FLOOR_MULTIPLE * floor(kept, opens, truth)
    worst_exact, least_wrong = 0.0, []
    for number, trajectory in enumerate(opens):
        for segment in trajectory.segments:
            if segment.end == segment.start:
                continue
            span = slice(segment.start, segment.end)
            found = old[number, segment.index]
            worst_exact = max(worst_exact, float(np.abs(found - truth[number, segment.version][span].numpy()).max()))
            # what Recompute would have used: the newest weights
            wrong = truth[number, 4][span].numpy()
            if segment.version < 4:
                least_wrong.append(float(np.abs(found - wrong).max()))
    assert worst_exact <= tolerance
    assert np.median(least_wrong) > 1e-2, "the versions must differ, or exactness shows nothing"


def floor(kept: dict[int, torch.nn.Module], opens: list[Open], truth: dict[tuple[int, int], torch.Tensor]) -> float:
    """The numeric floor: one right-padded batched forward against single-sequence forwards, same weights, largest difference."""
    longest = max(len(trajectory.token_ids) for trajectory in opens)
    ids = torch.zeros(len(opens), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for number, trajectory in enumerate(opens):
        ids[number, : len(trajectory.token_ids)] = torch.tensor(trajectory.token_ids)
        mask[number, : len(trajectory.token_ids)] = 1
    worst = 1e-7
    for version, model in kept.items():
        with torch.no_grad():
            logprobs = torch.log_softmax(model(input_ids=ids, attention_mask=mask).logits.double() / 0.8, -1)
        for number, trajectory in enumerate(opens):
            count = len(trajectory.token_ids)
            chosen = logprobs[number, : count - 1].gather(1, ids[number, 1:count, None])[:, 0]
            worst = max(worst, float((chosen - truth[number, version][1:]).abs().max()))
    return worst


async def test_a_flipped_label_is_refused(tmp_path: Path) -> None:
    """Version alone, hash alone: refused by comparison. Both together, consistently: the per-segment bound trips."""
    spec = job("Float32").spec
    trainer, engine = Trainer(spec), TorchEngine(spec)
    await engine.start()
    opens = [Open([0, 4], []), Open([0, 5], [])]
    records: dict[int, VersionRecord | None] = {}
    try:
        records[0], path = publish(trainer, 0, tmp_path)
        assert records[0] is not None
        await engine.load(path, records[0])
        await engine.resume()
        await sample_until(engine, opens, 4)
    finally:
        await engine.close()
    item = items_of(opens, 0)[-1]
    move(trainer, 1)
    records[1], _ = publish(trainer, 1, tmp_path)
    assert records[1] is not None

    def relabelled(version: int, weights_hash: str) -> ScoreItem:
        return ScoreItem(
            item.key, item.group_id, version, weights_hash, item.start, item.end, item.token_ids, item.behavior_logprobs
        )

    version_flipped = trainer.score([relabelled(1, records[0].published_hash)], records)
    assert list(version_flipped.discarded) == ["hash_mismatch"]
    hash_flipped = trainer.score([relabelled(0, records[1].published_hash)], records)
    assert list(hash_flipped.discarded) == ["hash_mismatch"]
    both_flipped = trainer.score([relabelled(1, records[1].published_hash)], records)
    assert list(both_flipped.discarded) == ["mislabelled"]
    assert version_flipped.scores == hash_flipped.scores == both_flipped.scores == []
