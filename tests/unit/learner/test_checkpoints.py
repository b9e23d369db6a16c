"""Checkpoints come back as they went, or say what is wrong with them; a half-written one never counts."""

import shutil
from pathlib import Path

import pytest
import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo_runtime.learner.checkpoints import (
    read_checkpoint,
    tidy_checkpoints,
    write_checkpoint,
)
from asyncppo_runtime.learner.errors import CheckpointError, GuardError
from asyncppo_runtime.learner.layout import checkpoint_path
from asyncppo_runtime.learner.trainer import Trainer


def spec(**model: int) -> AsyncPPOJobSpec:
    builtin = {"hiddenSize": 16, "layers": 1, "heads": 2, "intermediateSize": 16} | model
    return AsyncPPOJobSpec.model_validate(
        {
            "model": {"builtin": builtin},
            "environment": {"type": "GuessNumber"},
            "algorithm": {"updates": 4, "batchGroups": 1, "groupSize": 2},
            "oldLogits": {"strategy": "Interruption"},
        }
    )


def stepped(trainer: Trainer, seed: int) -> Trainer:
    generator = torch.Generator().manual_seed(seed)
    trainer.published(seed)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    trainer.step(seed, ())
    return trainer


def test_a_restored_trainer_takes_the_very_same_next_step(tmp_path: Path) -> None:
    trainer = stepped(Trainer(spec()), 0)
    write_checkpoint(tmp_path, trainer.checkpoint(1, 1, "f"))
    other = Trainer(spec())
    assert other.train_hash() != trainer.train_hash()
    other.restore(read_checkpoint(checkpoint_path(tmp_path, 1)))
    assert other.train_hash() == trainer.train_hash()
    assert stepped(other, 1).train_hash() == stepped(trainer, 1).train_hash()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path, stepped(Trainer(spec()), 0).checkpoint(1, 1, "f"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(folder)


def test_another_models_checkpoint_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, stepped(Trainer(spec()), 0).checkpoint(1, 1, "f"))
    wider = Trainer(spec(hiddenSize=32))
    before = wider.train_hash()
    with pytest.raises(CheckpointError, match="does not match"):
        wider.restore(read_checkpoint(folder))
    assert wider.train_hash() == before


def test_flipped_weights_do_not_pass_for_the_version(tmp_path: Path) -> None:
    trainer = stepped(Trainer(spec()), 0)
    folder = write_checkpoint(tmp_path, trainer.checkpoint(1, 1, "f"))
    whole = read_checkpoint(folder)
    next(iter(whole.parameters.values())).view(-1)[0] += 1.0
    with pytest.raises(CheckpointError, match="hash"):
        Trainer(spec()).restore(whole)


def test_a_failed_write_leaves_neither_a_checkpoint_nor_a_draft(tmp_path: Path) -> None:
    checkpoint = stepped(Trainer(spec()), 0).checkpoint(1, 1, "f")
    write_checkpoint(tmp_path, checkpoint)
    before = sorted(path.name for path in checkpoint_path(tmp_path, 1).iterdir())
    unwritable = checkpoint.parameters | {"bad": object()}  # type: ignore[dict-item]
    with pytest.raises(Exception, match=r".*"):
        write_checkpoint(tmp_path, type(checkpoint)(checkpoint.state, unwritable, {}, {}))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert sorted(path.name for path in checkpoint_path(tmp_path, 1).iterdir()) == before


def test_a_start_deletes_what_the_ledger_gave_up_and_sets_aside_what_it_does_not_know(tmp_path: Path) -> None:
    trainer = stepped(Trainer(spec()), 0)
    for version in (1, 2, 3):
        write_checkpoint(tmp_path, trainer.checkpoint(version, version, "f"))
    shutil.copytree(checkpoint_path(tmp_path, 3), tmp_path / "00000004.tmp")
    (tmp_path / "notes").mkdir()
    assert tidy_checkpoints(tmp_path, {2}, {1}) == [tmp_path / "00000003.unknown"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000003.unknown", "notes"]
    write_checkpoint(tmp_path, trainer.checkpoint(3, 3, "f"))
    assert tidy_checkpoints(tmp_path, {2}, {1}) == [tmp_path / "00000003.unknown-2"]
    assert (tmp_path / "00000003.unknown" / "model.safetensors").exists()
    assert tidy_checkpoints(tmp_path / "none", {2}, {1}) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_moves_nothing(value: float) -> None:
    trainer = Trainer(spec())
    trainer.published(0)
    before = trainer.train_hash()
    for parameter in trainer.model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    with pytest.raises(GuardError, match="not finite"):
        trainer.step(0, ())
    assert trainer.train_hash() == before


def test_a_step_with_unscored_tokens_of_the_resident_version_is_refused() -> None:
    trainer = Trainer(spec())
    trainer.published(7)
    before = trainer.train_hash()
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(GuardError, match="unscored"):
        trainer.step(0, {7})
    assert trainer.train_hash() == before


def test_a_second_step_before_the_publication_is_refused() -> None:
    trainer = stepped(Trainer(spec()), 0)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(GuardError, match="one optimizer step per version"):
        trainer.step(0, ())
