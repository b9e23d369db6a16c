"""Versions of a tiny model, brute-force scores, and strategies in one line."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from tests.unit.algorithm.builders import perturbed, tiny_model
from torch import Tensor, nn

from asyncppo.api.correction import EwmaSpec, OldLogitsSpec, Scoring, SnapshotSpec, StalenessSpec, Strategy
from asyncppo_runtime.algorithm.batch import TokenBatch
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, HeldVersion, StrategySettings
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash

FORWARD = ForwardSettings(temperature=0.9, token_budget=64)


@dataclass
class Versions:
    """A deep copy of every version: the brute force that strategies are compared with."""

    models: dict[int, nn.Module] = field(default_factory=dict)

    @classmethod
    def of(cls, versions: list[int], dtype: torch.dtype = torch.float64, tied: bool = False) -> "Versions":
        base = tiny_model(0, dtype, tied)
        made = cls()
        for version in versions:
            model = copy.deepcopy(base)
            if version:
                with torch.no_grad():
                    for name, tensor in perturbed(base, seed=version, size=0.05).items():
                        model.get_parameter(name).copy_(tensor)
            made.models[version] = model
        return made

    def tensors(self, version: int) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in policy_tensors(self.models[version]).items()}

    def hash(self, version: int) -> str:
        return tensors_hash(self.tensors(version))

    @contextmanager
    def hold(self, version: int) -> Iterator[HeldVersion]:
        yield HeldVersion(self.models[version], version, self.hash(version))

    def brute_force(self, batch: TokenBatch, temperature: float = FORWARD.temperature) -> Tensor:
        """Each loss token by a full forward of a kept copy of its version, one trajectory at a time."""
        out = torch.zeros(batch.token_ids.shape, dtype=torch.float64)
        for row, position in torch.nonzero(batch.loss_mask).tolist():
            model = self.models[int(batch.policy_version[row, position])]
            ids = batch.token_ids[row : row + 1, : int(batch.lengths[row])]
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, position - 1].double() / temperature
            out[row, position] = torch.log_softmax(logits, -1)[batch.token_ids[row, position]]
        return out


@dataclass(frozen=True)
class Record:
    """A version's record."""

    version: int
    train_hash: str
    published_hash: str


def settings(
    strategy: Strategy,
    max_versions: int = 4,
    scoring: Scoring = Scoring.BARRIER,
    decay: float | None = None,
    reset_below: float = 0.9,
    retention: int | None = None,
) -> StrategySettings:
    """Strategy settings in one line."""
    spec = OldLogitsSpec(
        strategy=strategy,
        scoring=scoring,
        snapshot=SnapshotSpec(retention=retention),
        ewma=EwmaSpec(decay=decay, reset_below=reset_below),
    )
    return StrategySettings(spec, StalenessSpec(max_versions=max_versions))
