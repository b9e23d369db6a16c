"""Checkpoint files: weights, optimizer, progress; written beside, synced, renamed. Which ones count, the ledger says.

A folder `checkpoints/<version>/` holds model.safetensors (train-side parameters), optimizer.safetensors (one tensor per state
entry, named `<parameter index>.<entry>`), strategy.safetensors (what the old-logits strategy keeps, if anything),
critic.safetensors (with GAE only) and state.json.
No pickle anywhere.
"""

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from asyncppo.errors import storage_remedy
from asyncppo.faults import CHECKPOINT, Moment, inside, refuse_write
from asyncppo_runtime.learner.errors import CheckpointError
from asyncppo_runtime.learner.layout import checkpoint_path, checkpoint_version
from asyncppo_runtime.weights.files import set_aside

CRITIC = "critic.safetensors"
DRAFT_SUFFIX = ".tmp"


@dataclass(frozen=True)
class CheckpointState:
    """What is not a tensor. update: optimizer steps taken. train_hash: of the parameters, checked at restore."""

    version: int
    update: int
    train_hash: str
    fingerprint: str


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint in memory: parameters by name, optimizer tensors by `<index>.<entry>`, the strategy's own tensors, the
    critic's head."""

    state: CheckpointState
    parameters: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    strategy: dict[str, torch.Tensor]
    critic: dict[str, torch.Tensor] = field(default_factory=dict)


def write_checkpoint(root: Path, checkpoint: Checkpoint) -> Path:
    """Write and make durable; afterwards the folder is complete under its final name. OSError when the disk is full."""
    final = checkpoint_path(root, checkpoint.state.version)
    draft = final.with_suffix(DRAFT_SUFFIX)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        save_file(checkpoint.parameters, draft / "model.safetensors")
        save_file(checkpoint.optimizer, draft / "optimizer.safetensors")
        save_file(checkpoint.strategy, draft / "strategy.safetensors")
        if checkpoint.critic:
            save_file(checkpoint.critic, draft / CRITIC)
        (draft / "state.json").write_text(json.dumps(asdict(checkpoint.state)) + "\n")
        for path in (*draft.iterdir(), draft):
            _sync(path)
        refuse_write(CHECKPOINT, draft)
    except SafetensorError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise OSError(
            f"checkpoint {final} could not be written: {error}; {storage_remedy(error)}, then resume"
        ) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    _sync(root)
    inside(CHECKPOINT, Moment.AFTER)
    return final


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read one back. CheckpointError names what is wrong with it."""
    try:
        state = msgspec.json.decode((folder / "state.json").read_bytes(), type=CheckpointState)
        parameters = load_file(folder / "model.safetensors")
        optimizer = load_file(folder / "optimizer.safetensors")
        strategy = load_file(folder / "strategy.safetensors")
        critic = load_file(folder / CRITIC) if (folder / CRITIC).exists() else {}
    except (OSError, ValueError, msgspec.MsgspecError, SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {folder} is damaged ({error}); remove it to resume from an older one, or start a new run"
        ) from error
    return Checkpoint(state, parameters, optimizer, strategy, critic)


def tidy_checkpoints(root: Path, keep: Collection[int], dropped: Collection[int]) -> list[Path]:
    """At start: delete drafts and the folders of checkpoints that the ledger has `dropped`; what is neither dropped nor to be kept is
    renamed, never deleted. Returns what was renamed, under its new names."""
    aside: list[Path] = []
    if not root.is_dir():
        return aside
    for folder in sorted(root.iterdir()):
        version = checkpoint_version(folder.name)
        if folder.suffix == DRAFT_SUFFIX and checkpoint_version(folder.stem) is not None:
            shutil.rmtree(folder)
        elif version is not None and version not in keep:
            if version in dropped:
                shutil.rmtree(folder)
            else:
                aside.append(set_aside(folder))
    return aside


def remove_checkpoint(root: Path, version: int) -> None:
    """Delete one version's folder, if it is there."""
    shutil.rmtree(checkpoint_path(root, version), ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
