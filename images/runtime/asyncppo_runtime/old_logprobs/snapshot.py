"""Snapshot: every version's weights are kept until no token needs them, and a batch is scored by each of its versions. Exact.

Owns the strategy's answers; the ring (`ring`) owns the weights, `gather` and `scoring` the forwards.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn

from asyncppo.api.correction import Strategy
from asyncppo_runtime.old_logprobs.interface import HeldVersion, OldLogprobStrategy, StrategySettings, Timing, Traits
from asyncppo_runtime.old_logprobs.ring import Medium, MemoryMedium, VersionRing
from asyncppo_runtime.weights.hashing import tensors_hash


class Snapshot(OldLogprobStrategy):
    """Lends every kept version. medium: default in memory; give a DiskMedium for `snapshot.medium: Disk`."""

    traits = Traits(Strategy.SNAPSHOT, "exact_snapshot", Timing.AT_BATCH, keeps_versions=True, extra_forwards=True)

    def __init__(self, settings: StrategySettings, medium: Medium | None = None) -> None:
        super().__init__(settings)
        retention = settings.old_logits.snapshot.retention or settings.staleness.max_versions + 1
        self.ring = VersionRing(medium or MemoryMedium(), retention)

    def start(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the first resident version."""
        self.ring.keep(version, tensors, tensors_hash(tensors))

    def published(self, version: int, tensors: Mapping[str, Tensor], train_hash: str) -> None:
        """Keep it. Raises RingFullError when the ring is full of versions with live tokens."""
        self.ring.keep(version, tensors, train_hash)

    def retired(self, version: int) -> None:
        """Its weights may go."""
        self.ring.retire(version)

    def hold(self, version: int, model: nn.Module) -> AbstractContextManager[HeldVersion]:
        """`model` with that version's tensors."""
        return self.ring.hold(version, model)

    @property
    def bytes_held(self) -> int:
        """Bytes of memory the ring takes (0 on disk)."""
        return self.ring.medium.bytes_held
