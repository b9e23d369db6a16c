"""Means over seeds, and differences between strategies that saw the same seeds, with intervals. Pure.

Pairs share task seeds, sampling seeds and the schedule, so the spread of the difference is what counts, not that of the rewards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncppo.study.results import CellResult

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t, 97.5 %, for 1 to 30 degrees of freedom."""
NORMAL_975 = 1.960


@dataclass(frozen=True)
class Interval:
    """mean with a 95 % interval [low, high] (Student's t); the interval is infinite with fewer than two values."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Row:
    """All seeds of one strategy at one value of the swept field. difference: of the late reward, to the study's first strategy at the
    same seeds; None for that one itself."""

    strategy: str
    value: Any
    cells: tuple[CellResult, ...]
    difference: Interval | None

    def mean(self, name: str) -> float:
        """Mean over the seeds of a figure of the result."""
        return average([float(getattr(cell, name)) for cell in self.cells])

    def cost(self, name: str) -> float | None:
        """Mean over the seeds of a figure of its cost; None when none measured it."""
        found = [float(value) for cell in self.cells if (value := getattr(cell.cost, name)) is not None]
        return average(found) if found else None

    def error(self, name: str) -> float | None:
        """Mean over the seeds that measured it; None when none did."""
        found = [float(getattr(cell.errors, name)) for cell in self.cells if cell.errors is not None]
        return average(found) if found else None

    @property
    def spread(self) -> float:
        """Standard deviation of the late reward over the seeds (unbiased); 0 with fewer than two."""
        return deviation([cell.reward for cell in self.cells])


def average(values: Sequence[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    return math.fsum(values) / len(values) if values else 0.0


def deviation(values: Sequence[float]) -> float:
    """Unbiased standard deviation; 0 with fewer than two values."""
    if len(values) < 2:
        return 0.0
    center = average(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (len(values) - 1))


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent values with its 95 % interval."""
    count, center = len(values), average(values)
    if count < 2:
        return Interval(center, -math.inf, math.inf, count)
    factor = T_975[count - 2] if count - 1 <= len(T_975) else NORMAL_975
    half = factor * deviation(values) / math.sqrt(count)
    return Interval(center, center - half, center + half, count)


def rows(results: Sequence[CellResult], strategies: Sequence[str], values: Sequence[Any]) -> list[Row]:
    """One row per value and strategy, in the given orders; those without any result are left out."""
    made = []
    for value in values:
        here = [result for result in results if result.value == value]
        base = {result.seed: result.reward for result in here if result.strategy == strategies[0]}
        for name in strategies:
            own = tuple(sorted((r for r in here if r.strategy == name), key=lambda r: r.seed))
            if not own:
                continue
            pairs = [cell.reward - base[cell.seed] for cell in own if cell.seed in base]
            made.append(Row(name, value, own, None if name == strategies[0] else interval(pairs)))
    return made
