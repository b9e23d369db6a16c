"""The ring of kept versions: their train-side tensors, in memory or on disk, and who still needs them.

Owns keeping, counting, evicting and lending. Does not own which tokens are alive (the ledger) nor what is scored.

A version goes only when it is retired (no token of it is alive), nobody has it pinned, and it is not the newest. When the ring is full of
versions that are not retired, keeping another is refused: the publication waits, tokens are never orphaned.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol

from torch import Tensor, nn

from asyncppo_runtime.old_logprobs.errors import HeldWeightsError, RingFullError, VersionUnavailableError
from asyncppo_runtime.old_logprobs.interface import HeldVersion, bytes_of, own_copy
from asyncppo_runtime.old_logprobs.parameters import borrowed
from asyncppo_runtime.weights.errors import WeightsError
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore


class Medium(Protocol):
    """Where versions' tensors are."""

    def keep(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Copies of the tensors, for good."""

    def load(self, version: int) -> Mapping[str, Tensor]:
        """The tensors as they were kept; nobody changes them. KeyError or WeightsError when they are gone or damaged."""

    def drop(self, version: int) -> None:
        """They may go; also when they are gone already."""

    def versions(self) -> list[int]:
        """What is there, ascending."""

    @property
    def bytes_held(self) -> int:
        """Bytes of memory (not of disk) it takes."""


class MemoryMedium:
    """Copies in RAM; gone with the process."""

    def __init__(self) -> None:
        self._tensors: dict[int, dict[str, Tensor]] = {}

    def keep(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Copies on the CPU."""
        self._tensors[version] = own_copy({name: tensor.detach().cpu() for name, tensor in tensors.items()})

    def load(self, version: int) -> Mapping[str, Tensor]:
        """The copies themselves."""
        return self._tensors[version]

    def drop(self, version: int) -> None:
        """Free them."""
        self._tensors.pop(version, None)

    def versions(self) -> list[int]:
        """Ascending."""
        return sorted(self._tensors)

    @property
    def bytes_held(self) -> int:
        """Bytes of all copies."""
        return sum(bytes_of(tensors) for tensors in self._tensors.values())


class DiskMedium:
    """A weight store of *train-side* tensors (never the cast that engines load, unless that cast changes nothing).

    writes: False when somebody else publishes into this store; keep and drop then leave the files alone.
    """

    def __init__(self, store: WeightStore, writes: bool = True) -> None:
        self._store = store
        self._writes = writes

    def keep(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a file, unless the store's owner does."""
        if self._writes:
            self._store.publish(version, tensors)

    def load(self, version: int) -> Mapping[str, Tensor]:
        """Read the file."""
        return self._store.load(version)

    def drop(self, version: int) -> None:
        """Delete the file, unless the store's owner does."""
        if self._writes:
            self._store.remove(version)

    def versions(self) -> list[int]:
        """Ascending."""
        return self._store.versions()

    @property
    def bytes_held(self) -> int:
        """No memory."""
        return 0


class VersionRing:
    """At most `retention` versions on `medium`, and one more while a publication is under way; pins are counted per version."""

    def __init__(self, medium: Medium, retention: int) -> None:
        self.medium = medium
        self.retention = retention
        self._hashes: dict[int, str] = {}
        self._pins: Counter[int] = Counter()
        self._retired: set[int] = set()

    def keep(self, version: int, tensors: Mapping[str, Tensor], train_hash: str) -> None:
        """Keep a version; the same again is a no-op.

        Raises RingFullError when the versions that are not retired fill the ring, HeldWeightsError when the version is kept with another
        hash. After an error the ring is as it was.
        """
        if version in self._hashes:
            if self._hashes[version] != train_hash:
                raise HeldWeightsError(
                    f"version {version} is kept already, with other weights; a version is never reused"
                )
            return
        if len(self._hashes) > self.retention:
            raise RingFullError(
                f"{len(self._hashes)} versions are kept and none is retired (retention {self.retention}); score or discard the tokens of "
                f"version {min(self._hashes)} first, or raise oldLogits.snapshot.retention"
            )
        self.medium.keep(version, tensors)
        self._hashes[version] = train_hash
        self._sweep()

    def adopt(self, hashes: Mapping[int, str], beside: Medium | None = None) -> list[int]:
        """After a restart: take up what the medium still has of these versions (version → train hash), and copies of what `beside` has
        of the others, in the very same bytes. Returns those that are in neither."""
        present = set(self.medium.versions())
        self._hashes |= {version: digest for version, digest in hashes.items() if version in present}
        if beside is not None:
            for version in sorted((hashes.keys() - present).intersection(beside.versions())):
                with suppress(WeightsError):  # damaged: as good as not there
                    tensors = beside.load(version)
                    if tensors_hash(tensors) == hashes[version]:
                        self.medium.keep(version, tensors)
                        self._hashes[version] = hashes[version]
        return sorted(hashes.keys() - self._hashes.keys())

    def take_back(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """A version that was kept before a restart, under the hash of what is really in its tensors. However many: retention bounds
        what is published, and what nobody needs is retired next."""
        self.medium.keep(version, tensors)
        self._hashes[version] = tensors_hash(tensors)

    def pin(self, version: int, count: int = 1) -> None:
        """`count` more live tokens (or requests) need the version. Raises VersionUnavailableError when it is gone."""
        if version not in self._hashes:
            raise VersionUnavailableError(version, f"version {version} is not kept any more (kept: {self.versions()})")
        self._pins[version] += count

    def unpin(self, version: int, count: int = 1) -> None:
        """`count` fewer do. Raises ValueError for more than were pinned."""
        if self._pins[version] < count:
            raise ValueError(f"version {version} is pinned {self._pins[version]} times, not {count}")
        self._pins[version] -= count
        self._sweep()

    def retire(self, version: int) -> None:
        """No token of the version is alive: it goes as soon as it is unpinned and not the newest."""
        if version in self._hashes:
            self._retired.add(version)
            self._sweep()

    def versions(self) -> list[int]:
        """Kept versions, ascending."""
        return sorted(self._hashes)

    @contextmanager
    def hold(self, version: int, model: nn.Module) -> Iterator[HeldVersion]:
        """`model` with the version's tensors, pinned meanwhile. Their hash is computed from what is loaded, and compared.

        Raises VersionUnavailableError, HeldWeightsError.
        """
        self.pin(version)
        try:
            try:
                tensors = self.medium.load(version)
            except (KeyError, WeightsError) as error:
                raise VersionUnavailableError(version, f"version {version} cannot be loaded: {error}") from error
            found = tensors_hash(tensors)
            if found != self._hashes[version]:
                raise HeldWeightsError(
                    f"what is kept as version {version} hashes to {found[:12]}…, the version is {self._hashes[version][:12]}…"
                )
            with borrowed(model, tensors):
                yield HeldVersion(model, version, found)
        finally:
            self.unpin(version)

    def _sweep(self) -> None:
        newest = max(self._hashes, default=-1)
        for version in sorted(self._retired):
            if not self._pins[version] and version != newest:
                self.medium.drop(version)
                self._retired.discard(version)
                del self._hashes[version]
                del self._pins[version]
