"""Which checkpoint a learner goes on from: the newest that is there; a damaged one is named and nothing is guessed."""

import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.report.measures import UpdateMetrics
from asyncppo.sync.columns import SealRule
from asyncppo_runtime.learner.errors import CheckpointError
from asyncppo_runtime.learner.publication import Publication
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import LedgerSettings
from asyncppo_runtime.weights.store import WeightStore

SPEC = AsyncPPOJobSpec.model_validate(
    {
        "model": {"builtin": {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 16}},
        "environment": {"type": "GuessNumber"},
        "algorithm": {"updates": 9, "batchGroups": 1, "groupSize": 2},
        "oldLogits": {"strategy": "Recompute"},
        "checkpoint": {"keep": 3},
    }
)
SETTINGS = LedgerSettings("uid", "f", group_size=2, seed=0, seal_rule=SealRule.NONE, exact=False)


class Life:
    """One life of a learner, as far as its versions are concerned."""

    def __init__(self, folder: Path) -> None:
        self.ledger = OwnThread("ledger", lambda: Ledger.open(folder / "ledger.db", SETTINGS, time.monotonic()))
        self.trainer = OwnThread("trainer", lambda: Trainer(SPEC, folder / "snapshots"))
        store = WeightStore(folder / "weights")
        self.publication = Publication(SPEC, "f", self.ledger, self.trainer, store, folder / "checkpoints")

    async def update(self, number: int) -> str:
        """One update with a gradient of noise; the hash of the version it made."""

        def step(trainer: Trainer) -> str:
            for parameter in trainer.model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            trainer.step(number - 1, ())
            return trainer.train_hash()

        train_hash = await self.trainer(step)
        await self.publication.publish_step(
            number, (), UpdateMetrics(update=number, version=number, at_seconds=0.0, reward=0.0)
        )
        return train_hash

    def end(self) -> None:
        self.trainer.close()
        self.ledger.close(Ledger.close)


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Callable[[], Life]]:
    """Begins a life in the one folder; the one before it must have ended."""
    lives: list[Life] = []

    def begin() -> Life:
        if lives:
            lives.pop().end()
        lives.append(Life(tmp_path))
        return lives[-1]

    yield begin
    lives.pop().end()


async def test_a_removed_checkpoint_is_passed_over(life: Callable[[], Life], tmp_path: Path) -> None:
    first = life()
    assert await first.publication.begin() == 0
    hashes = [await first.update(number) for number in (1, 2)]
    shutil.rmtree(tmp_path / "checkpoints" / "00000002")
    second = life()
    assert await second.publication.begin() == 1
    assert await second.trainer(Trainer.train_hash) == hashes[0]
    # Version 2 was published: the number is not used again, another lineage goes on with the weights of version 1.
    assert (second.publication.version, second.publication.lineage) == (3, 1)
    assert await second.update(2) == hashes[1]


async def test_a_damaged_one_is_named_and_not_passed_over(life: Callable[[], Life], tmp_path: Path) -> None:
    first = life()
    await first.publication.begin()
    await first.update(1)
    state = tmp_path / "checkpoints" / "00000001" / "state.json"
    for damage in (
        '{"version": 1}',
        '{"version": 1, "update": "one", "train_hash": "", "fingerprint": "f"}',
        "[1]",
        "\udcff",
    ):
        state.write_bytes(damage.encode(errors="surrogateescape"))
        with pytest.raises(CheckpointError, match=r"00000001 is damaged .*; remove it to resume from an older one"):
            await life().publication.begin()
    shutil.rmtree(state.parent)
    assert await life().publication.begin() == 0


async def test_without_any_it_says_so(life: Callable[[], Life], tmp_path: Path) -> None:
    await life().publication.begin()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="none of the checkpoints in the ledger is left"):
        await life().publication.begin()
