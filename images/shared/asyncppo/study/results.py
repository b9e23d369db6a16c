"""What a cell came to, in one shape for both modes, and its file. Owns names and units; measures nothing itself."""

from pathlib import Path
from typing import Any

import msgspec

from asyncppo.errors import UserError
from asyncppo.report.measures import Measure


class Errors(Measure, frozen=True, kw_only=True):
    """What the strategy's old log-probs decide otherwise than the exact ones: shares of the trained tokens. anchor: mean |old - exact|."""

    false_mask: float = 0.0
    missed_mask: float = 0.0
    false_clip: float = 0.0
    missed_clip: float = 0.0
    anchor: float = 0.0


class Cost(Measure, frozen=True, kw_only=True):
    """Seconds of the whole cell: CPU seconds of its process on the virtual schedule, seconds of the clock in real runs.

    wall: all but the study's own measuring. learner: training and scoring. stall: what rollouts stand still for. extra_forwards:
    forward tokens beside the policy's own, over trained trajectories' tokens. bytes_held: most bytes of weights kept beside the
    model's own, in memory and on disk. None: not measured in this mode.
    """

    wall: float = 0.0
    learner: float = 0.0
    stall: float = 0.0
    extra_forwards: float | None = None
    bytes_held: int | None = None


class CellResult(Measure, frozen=True, kw_only=True):
    """One cell. rewards: mean of each update's batch. reward: mean over the last fifth of the updates.

    staleness: mean over trained tokens, in versions. coverage: share of trained tokens whose old log-prob comes from the version that
    sampled them. k3, slope: of the discrepancy, and its slope against staleness. errors: None where they were not measured.
    """

    strategy: str
    exact: bool
    seed: int
    value: Any = None
    mode: str
    fingerprint: str
    updates: int
    rewards: list[float]
    reward: float
    tokens: int
    staleness: float
    coverage: float
    k3: float
    slope: float
    mask_fraction: float
    clip_fraction: float
    errors: Errors | None = None
    cost: Cost


def late_reward(rewards: list[float]) -> float:
    """Mean over the last fifth of the updates (at least one); 0 of none."""
    if not rewards:
        return 0.0
    last = rewards[-max(1, len(rewards) // 5) :]
    return sum(last) / len(last)


def encode_result(result: CellResult) -> bytes:
    """The file's bytes."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def read_result(path: Path) -> CellResult:
    """Raises UserError for a file that is not a result."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=CellResult)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            f"{path}: is not a result of this version of asyncppo ({error}); remove it, or choose another --output"
        ) from error
