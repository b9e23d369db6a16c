"""Snapshot: every version's weights are kept until no token needs them, and a batch is scored by each of its versions. Exact.

Owns the strategy's answers; the ring (`ring`) owns the weights, `gather` and `scoring` the forwards.

What is kept in memory goes with the process, the tokens that need it do not. So a restart takes it back: from the published weights, which
stay on the volume as long as tokens need them, or, where these are a cast of the version, from the checkpoint, which then keeps it too.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn

from asyncppo.api.correction import SnapshotMedium, Strategy
from asyncppo_runtime.old_logprobs.interface import HeldVersion, OldLogprobStrategy, StrategySettings, Timing, Traits
from asyncppo_runtime.old_logprobs.ring import DiskMedium, Medium, MemoryMedium, VersionRing
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore


class Snapshot(OldLogprobStrategy):
    """Lends every kept version. medium: by default what `snapshot.medium` says; Disk needs the settings' directory."""

    traits = Traits(Strategy.SNAPSHOT, "exact_snapshot", Timing.AT_BATCH, keeps_versions=True, extra_forwards=True)

    def __init__(self, settings: StrategySettings, medium: Medium | None = None) -> None:
        super().__init__(settings)
        retention = settings.old_logits.snapshot.retention or settings.staleness.max_versions + 1
        self.ring = VersionRing(medium or _medium(settings), retention)
        self._volatile = isinstance(self.ring.medium, MemoryMedium)
        published = settings.published if self._volatile else None
        self._published = DiskMedium(WeightStore(published), writes=False) if published is not None else None

    def adopt(self, train_hashes: Mapping[int, str]) -> None:
        """Take up what the medium still has of them, or the published weights; the rest is unavailable."""
        self.ring.adopt(train_hashes, self._published)

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

    def state(self) -> dict[str, Tensor]:
        """The kept versions, `<version>.<name>`, where neither the medium nor the published weights have them after a restart."""
        if not self._volatile or self._published is not None:
            return {}
        return {
            f"{version}.{name}": tensor
            for version in self.ring.versions()
            for name, tensor in self.ring.medium.load(version).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Keep them again."""
        versions: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            number, _, name = key.partition(".")
            versions.setdefault(int(number), {})[name] = tensor
        for version, tensors in versions.items():
            self.ring.take_back(version, tensors)

    @property
    def bytes_held(self) -> int:
        """Bytes of memory the ring takes (0 on disk)."""
        return self.ring.medium.bytes_held


def _medium(settings: StrategySettings) -> Medium:
    if settings.old_logits.snapshot.medium is SnapshotMedium.DISK and settings.directory is not None:
        return DiskMedium(WeightStore(settings.directory))
    return MemoryMedium()
