"""What lies where in the learner's folder: names only. Owns them; does not own what is written there, nor when.

Knows no tensors, so that a program which only looks at a folder starts at once.
"""

from pathlib import Path

LEDGER = "ledger.db"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
MODEL = "model"
SNAPSHOTS = "snapshots"
"""Where kept versions' train-side weights are."""
WEIGHTS = "weights"
"""Where published weights are."""


def checkpoint_path(root: Path, version: int) -> Path:
    """Folder of version's checkpoint."""
    return root / f"{version:08d}"


def checkpoint_version(name: str) -> int | None:
    """The version a folder's name stands for; None when it is no checkpoint (a draft, something set aside, not ours)."""
    return int(name) if name.isascii() and name.isdecimal() and f"{int(name):08d}" == name else None
