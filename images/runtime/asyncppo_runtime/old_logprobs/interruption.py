"""Interruption: every segment is scored under the very weights that sampled it, before those weights change. Exact.

Owns what is resident, the one frozen copy of the overlapped form, and the guard before a step. Does not own the pause (`asyncppo.sync`)
nor which segments are unscored (the ledger).

Barrier: one optimizer step per version, and no step while a token of the resident version is unscored. Overlapped: the step takes a frozen
copy of the resident weights first, and scoring goes on beside from that copy; the next step waits while the copy is needed. A checkpoint
keeps the copy too: a restart goes on scoring from it.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from asyncppo.api.correction import Scoring, Strategy
from asyncppo_runtime.algorithm.statistics import StepSums
from asyncppo_runtime.old_logprobs.errors import UnscoredTokensError, VersionUnavailableError
from asyncppo_runtime.old_logprobs.interface import (
    HeldVersion,
    OldLogprobStrategy,
    StrategySettings,
    Timing,
    Traits,
    bytes_of,
    own_copy,
)
from asyncppo_runtime.old_logprobs.parameters import borrowed
from asyncppo_runtime.weights.hashing import tensors_hash

FROZEN = "frozen."
FROZEN_VERSION = "frozen_version"


class Interruption(OldLogprobStrategy):
    """Lends the resident version, and (overlapped) the one before it; no other.

    The resident weights are lent as the model that holds them; the frozen copy is lent through the model given to `hold`, which must be
    one of its own (scoring runs beside the forward and backward of the resident one).
    """

    traits = Traits(
        Strategy.INTERRUPTION, "exact_interrupt", Timing.BEFORE_SEAL, keeps_versions=False, extra_forwards=True
    )

    def __init__(self, settings: StrategySettings) -> None:
        super().__init__(settings)
        self.overlapped = settings.old_logits.scoring is Scoring.OVERLAPPED
        self._resident: tuple[int, str] | None = None
        self._frozen: tuple[int, str] | None = None
        self._copy: dict[str, Tensor] = {}

    def start(self, version: int, tensors: Mapping[str, Tensor]) -> None:
        """The resident version; its hash is computed here."""
        self._resident = (version, tensors_hash(tensors))
        self._frozen, self._copy = None, {}

    def before_step(self, tensors: Mapping[str, Tensor], unscored: Collection[int]) -> None:
        """Call right before the optimizer step. tensors: the resident ones. unscored: versions that still have unscored tokens.

        Raises UnscoredTokensError: barrier, when the resident version is among them; overlapped, when the frozen one is (the copy is
        busy: wait), or an even older one.
        """
        if self._resident is None:
            raise UnscoredTokensError(
                "the weights have changed since the last publication: Interruption takes exactly one optimizer step per version"
            )
        version, train_hash = self._resident
        late = sorted(v for v in unscored if v < version or (v == version and not self.overlapped))
        if late:
            raise UnscoredTokensError(
                f"version {late[0]} still has unscored tokens and this step would destroy the only weights that can score them; "
                "score or discard them first"
            )
        if self.overlapped:
            self._frozen, self._copy = (version, train_hash), own_copy(tensors)

    def after_step(self, tensors: Mapping[str, Tensor], sums: StepSums) -> None:
        """The resident weights belong to no version until they are published."""
        self._resident = None

    def published(self, version: int, tensors: Mapping[str, Tensor], train_hash: str) -> None:
        """The resident version from now on. Without a step since the last one (a restore publishes its weights anew) tokens of the
        last number still need the same weights under that number."""
        if self.overlapped and self._resident is not None and self._resident[0] != version:
            self._frozen, self._copy = self._resident, own_copy(tensors)
        self._resident = (version, train_hash)

    def retired(self, version: int) -> None:
        """The frozen copy may go."""
        if self._frozen is not None and self._frozen[0] <= version:
            self._frozen, self._copy = None, {}

    def state(self) -> dict[str, Tensor]:
        """The frozen copy and its version, int64 []."""
        if self._frozen is None:
            return {}
        named = {FROZEN + name: tensor for name, tensor in self._copy.items()}
        return {**named, FROZEN_VERSION: torch.tensor(self._frozen[0])}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The frozen copy, if there was one, is there again, under the hash of what is really in it."""
        self._copy = {name.removeprefix(FROZEN): t for name, t in state.items() if name.startswith(FROZEN)}
        self._frozen = (int(state[FROZEN_VERSION]), tensors_hash(self._copy)) if self._copy else None

    @contextmanager
    def hold(self, version: int, model: nn.Module) -> Iterator[HeldVersion]:
        """The resident model itself, or `model` with the frozen copy."""
        if self._resident is not None and version == self._resident[0]:
            yield HeldVersion(model, *self._resident)
        elif self._frozen is not None and version == self._frozen[0]:
            with borrowed(model, self._copy):
                yield HeldVersion(model, *self._frozen)
        else:
            kept = [str(known[0]) for known in (self._frozen, self._resident) if known is not None]
            raise VersionUnavailableError(
                version,
                f"version {version} is not resident any more (here: {', '.join(kept) or 'none, a step is under way'})",
            )

    @property
    def bytes_held(self) -> int:
        """Bytes of the frozen copy."""
        return bytes_of(self._copy)
