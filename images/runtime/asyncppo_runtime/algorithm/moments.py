"""Additive sums of one ratio: moments, extremes and a histogram of its logarithm.

Owns how a ratio is summed so that parts of a batch add up to the whole. Does not own which ratio it is (`statistics`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from asyncppo_runtime.algorithm.ratios import bounded_exp

HISTOGRAM_LIMIT = 2.0
HISTOGRAM_BINS = 400
_WIDTH = 2 * HISTOGRAM_LIMIT / HISTOGRAM_BINS


@dataclass(frozen=True)
class RatioSums:
    """Sums over tokens of a ratio x: count, sum x, sum x², least and greatest x, histogram of log x.

    histogram: HISTOGRAM_BINS bins over [-HISTOGRAM_LIMIT, HISTOGRAM_LIMIT]; what lies outside counts in the first or last bin.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    histogram: tuple[int, ...] = (0,) * HISTOGRAM_BINS

    @classmethod
    def of(cls, log_ratio: Tensor, mask: Tensor) -> "RatioSums":
        """The sums of exp(log_ratio) over `mask`; any shape."""
        logs = log_ratio.detach()[mask].double()
        if logs.numel() == 0:
            return cls()
        ratio = bounded_exp(logs)
        bins = torch.histc(
            logs.clamp(-HISTOGRAM_LIMIT, HISTOGRAM_LIMIT), HISTOGRAM_BINS, -HISTOGRAM_LIMIT, HISTOGRAM_LIMIT
        )
        return cls(
            count=logs.numel(),
            total=float(ratio.sum()),
            squares=float((ratio * ratio).sum()),
            least=float(ratio.min()),
            greatest=float(ratio.max()),
            histogram=tuple(int(n) for n in bins.tolist()),
        )

    def __add__(self, other: "RatioSums") -> "RatioSums":
        """The sums over both parts."""
        return RatioSums(
            count=self.count + other.count,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            least=min(self.least, other.least),
            greatest=max(self.greatest, other.greatest),
            histogram=tuple(a + b for a, b in zip(self.histogram, other.histogram, strict=True)),
        )

    @property
    def mean(self) -> float:
        """Mean; 1 when empty."""
        return self.total / self.count if self.count else 1.0

    @property
    def std(self) -> float:
        """Standard deviation of the population; 0 when empty."""
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2)) if self.count else 0.0

    @property
    def largest(self) -> float:
        """Greatest ratio; 1 when empty."""
        return self.greatest if self.count else 1.0

    @property
    def smallest(self) -> float:
        """Least ratio; 1 when empty."""
        return self.least if self.count else 1.0

    @property
    def effective_sample_size(self) -> float:
        """(sum x)² / (count sum x²), a fraction in (0, 1]; 1 for constant weights, 1/count for a single non-zero one."""
        return self.total**2 / (self.count * self.squares) if self.count and self.squares else 1.0

    def quantile(self, q: float) -> float:
        """The q-quantile, to a bin's width (1 %); the exact least or greatest beyond the histogram's ends. 1 when empty."""
        if not self.count:
            return 1.0
        wanted, seen = q * self.count, 0
        for index, count in enumerate(self.histogram):
            seen += count
            if seen >= wanted and count:
                middle = math.exp(-HISTOGRAM_LIMIT + (index + 0.5) * _WIDTH)
                return min(max(middle, self.least), self.greatest)
        return self.greatest
