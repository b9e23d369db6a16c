"""The audit of the old log-probs: a sampled part of the trajectories is scored exactly as well, whatever the strategy.

Owns the sample and the versions it needs, where the strategy keeps none. Does not own the comparison (`algorithm.audit`).

Versions are kept as long as the staleness bound lets their tokens be trained, plus the newest; in files where a folder is given.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from asyncppo_runtime.algorithm.batch import NO_VERSION, TokenBatch
from asyncppo_runtime.old_logprobs.errors import VersionUnavailableError
from asyncppo_runtime.old_logprobs.gather import gather_versions
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, HeldVersion, OldLogprobStrategy
from asyncppo_runtime.old_logprobs.ring import DiskMedium, MemoryMedium, VersionRing
from asyncppo_runtime.weights.store import WeightStore


@dataclass(frozen=True)
class Truth:
    """logprobs: [B, T], exact on the audited tokens, 0 elsewhere. audited: bool [B, T], whole trajectories. missing: trajectories of
    the sample that could not be scored exactly."""

    logprobs: Tensor
    audited: Tensor
    missing: int

    def select(self, rows: Tensor, width: int) -> "Truth":
        """Of some trajectories, cut to `width` tokens; missing is of the whole batch."""
        return Truth(self.logprobs[rows, :width], self.audited[rows, :width], self.missing)


class Auditor:
    """fraction: of trajectories. max_versions: the staleness bound. strategy: lends versions if it keeps them."""

    def __init__(
        self, fraction: float, seed: int, max_versions: int, strategy: OldLogprobStrategy, directory: Path | None
    ) -> None:
        self._fraction = fraction
        self._seed = seed
        self._window = max_versions
        self._strategy = strategy
        medium = DiskMedium(WeightStore(directory)) if directory is not None else MemoryMedium()
        self._ring = None if strategy.traits.keeps_versions else VersionRing(medium, max_versions + 1)

    def adopt(self, train_hashes: Mapping[int, str]) -> None:
        """After a restart: what is still here of these versions."""
        if self._ring is not None:
            self._ring.adopt(train_hashes)

    def published(self, version: int, tensors: Mapping[str, Tensor], train_hash: str) -> None:
        """Keep it; let go what no step can train any more."""
        if self._ring is None:
            return
        for kept in self._ring.versions():
            if kept < version - self._window:
                self._ring.retire(kept)
        self._ring.keep(version, tensors, train_hash)

    def chosen(self, lease_ids: Sequence[int]) -> Tensor:
        """bool [B]: who is in the sample. The same trajectory always is, or never."""
        shares = [
            int.from_bytes(hashlib.blake2b(f"{self._seed}/{lease}".encode(), digest_size=8).digest(), "big") / 2**64
            for lease in lease_ids
        ]
        return torch.tensor([share < self._fraction for share in shares], dtype=torch.bool)

    def truth(self, batch: TokenBatch, lease_ids: Sequence[int], model: nn.Module, forward: ForwardSettings) -> Truth:
        """Score the sample exactly. Leaves the model as it was; no graph of it may be alive."""
        wanted = self.chosen(lease_ids) & batch.loss_mask.any(-1)
        asked = int(wanted.sum())
        exact = torch.zeros_like(batch.behavior_logprobs)
        while wanted.any():
            rows = torch.nonzero(wanted)[:, 0]
            part = batch.select(rows)
            nothing = torch.full_like(part.behavior_logprobs, torch.nan)
            blank = part.with_old(nothing, torch.full_like(part.policy_version, NO_VERSION))
            try:
                found = gather_versions(blank, lambda version: self._hold(version, model), forward).batch
            except VersionUnavailableError as error:
                wanted = wanted & ~(batch.loss_mask & (batch.policy_version == error.version)).any(-1)
                continue
            width = found.token_ids.shape[1]
            exact[rows, :width] = torch.where(found.loss_mask, found.old_logprobs, 0.0)
            break
        return Truth(exact, batch.loss_mask & wanted[:, None], asked - int(wanted.sum()))

    def _hold(self, version: int, model: nn.Module) -> AbstractContextManager[HeldVersion]:
        if self._ring is None:
            return self._strategy.hold(version, model)
        return self._ring.hold(version, model)
