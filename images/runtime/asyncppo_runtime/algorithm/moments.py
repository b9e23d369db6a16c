"""Additive sums of one ratio.

Owns how a ratio is summed so that parts of a batch add up to the whole. Does not own which ratio it is (`statistics`).
"""

import math
from dataclasses import dataclass

from torch import Tensor

from asyncppo_runtime.algorithm.ratios import bounded_exp


@dataclass(frozen=True)
class RatioSums:
    """Sums over tokens of a ratio x: count, sum x, sum x², greatest x."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    greatest: float = -math.inf

    @classmethod
    def of(cls, log_ratio: Tensor, mask: Tensor) -> "RatioSums":
        """The sums of exp(log_ratio) over `mask`; any shape."""
        logs = log_ratio.detach()[mask].double()
        if logs.numel() == 0:
            return cls()
        ratio = bounded_exp(logs)
        return cls(logs.numel(), float(ratio.sum()), float((ratio * ratio).sum()), float(ratio.max()))

    def __add__(self, other: "RatioSums") -> "RatioSums":
        """The sums over both parts."""
        return RatioSums(
            count=self.count + other.count,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            greatest=max(self.greatest, other.greatest),
        )

    @property
    def mean(self) -> float:
        """Mean; 1 when empty."""
        return self.total / self.count if self.count else 1.0

    @property
    def largest(self) -> float:
        """Greatest ratio; 1 when empty."""
        return self.greatest if self.count else 1.0

    @property
    def effective_sample_size(self) -> float:
        """(sum x)² / (count sum x²), a fraction in (0, 1]; 1 for constant weights, 1/count for a single non-zero one."""
        return self.total**2 / (self.count * self.squares) if self.count and self.squares else 1.0
