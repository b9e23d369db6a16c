"""A cell trained on the virtual schedule: the same twice, exact strategies alike to the last bit, proxies measured against them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.study.builders import job

from asyncppo.study.results import CellResult
from asyncppo_runtime.study.cell import CellRun

EXACT: dict[str, dict[str, Any]] = {
    "Barrier": {"strategy": "Interruption"},
    "Overlapped": {"strategy": "Interruption", "scoring": "Overlapped"},
    "SnapshotMemory": {"strategy": "Snapshot", "snapshot": {"medium": "Memory"}},
    "SnapshotDisk": {"strategy": "Snapshot", "snapshot": {"medium": "Disk"}},
}


def train(directory: Path, seed: int = 0, **old_logits: Any) -> CellResult:
    """One cell of five updates."""
    torch.set_num_threads(1)
    made = job(updates=5, seed=seed, **old_logits)
    return asyncio.run(CellRun(made, directory).train(5))


@pytest.fixture(scope="module")
def barrier(tmp_path_factory: pytest.TempPathFactory) -> CellResult:
    return train(tmp_path_factory.mktemp("barrier"), **EXACT["Barrier"])


@pytest.mark.parametrize("name", list(EXACT))
def test_exact_strategies_learn_the_same_to_the_last_bit(name: str, barrier: CellResult, tmp_path: Path) -> None:
    found = train(tmp_path, **EXACT[name])
    assert found.rewards == barrier.rewards
    assert (found.k3, found.slope, found.tokens) == (barrier.k3, barrier.slope, barrier.tokens)
    assert found.coverage == 1.0
    assert found.errors is not None
    assert (found.errors.false_mask, found.errors.missed_clip, found.errors.anchor) == (0.0, 0.0, 0.0)
    assert found.k3 > 0.0, "the engine's precision differs from the trainer's"
    assert found.staleness > 0.5


def test_another_seed_is_another_run(barrier: CellResult, tmp_path: Path) -> None:
    assert train(tmp_path, seed=1, **EXACT["Barrier"]).rewards != barrier.rewards


@pytest.mark.parametrize("strategy", ["EWMA", "Recompute", "LogLinear"])
def test_a_proxy_is_measured_against_the_exact_values(strategy: str, barrier: CellResult, tmp_path: Path) -> None:
    found = train(tmp_path, strategy=strategy)
    assert found.rewards[0] == barrier.rewards[0], "no step lies before the first batch"
    assert found.coverage == 0.0
    assert found.errors is not None
    assert found.errors.false_mask > 0.0
    assert found.errors.anchor > 0.0
    assert found.slope > 10 * abs(barrier.slope)


def test_costs_follow_from_what_is_kept_and_scored(barrier: CellResult, tmp_path: Path) -> None:
    kept = {name: train(tmp_path / name, **EXACT[name]).cost for name in ("Overlapped", "SnapshotMemory")}
    recompute = train(tmp_path / "recompute", strategy="Recompute").cost
    one = kept["Overlapped"].bytes_held
    assert one > 0
    assert 2 * one <= kept["SnapshotMemory"].bytes_held <= 5 * one
    assert barrier.cost.bytes_held == recompute.bytes_held == 0
    assert barrier.cost.extra_forwards > 1.0
    assert recompute.extra_forwards == 0.0
