"""The cells of a study: strategy x seed x value of the swept field, each a job of its own.

Owns the names of strategies on the command line and which fields they set. Does not own running (`driver.py`).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncppo.api.correction import OnUnavailable, Scoring, SnapshotMedium, Strategy
from asyncppo.api.implemented import built_values
from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import dump_manifest
from asyncppo.api.problems import did_you_mean
from asyncppo.api.sweep import Sweep, with_fields
from asyncppo.errors import UserError

VARIANTS: dict[Strategy, tuple[str, tuple[str, ...]]] = {
    Strategy.INTERRUPTION: ("oldLogits.scoring", tuple(Scoring)),
    Strategy.SNAPSHOT: ("oldLogits.snapshot.medium", tuple(SnapshotMedium)),
}
"""Strategies with variants: the field that chooses, and its values. `Interruption/Overlapped` on the command line."""


@dataclass(frozen=True)
class Contender:
    """One strategy as it was named. label: as in tables. variant: "" where the manifest's own settings hold."""

    label: str
    strategy: Strategy
    variant: str = ""


@dataclass(frozen=True)
class Cell:
    """One training run. value: of the swept field, None without a sweep. name: of its files."""

    contender: Contender
    seed: int
    value: Any
    job: AsyncPPOJob

    @property
    def name(self) -> str:
        """Unlike for every cell of a study, and fit for a file name."""
        parts = [self.contender.label.replace("/", "-")]
        if self.value is not None:
            parts.append(re.sub(r"[^A-Za-z0-9.]+", "_", str(self.value)))
        return "-".join([*parts, f"seed{self.seed}"]).lower()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the cell's job: a result counts only for the very job that it was made by."""
        return hashlib.sha256(dump_manifest(self.job).encode()).hexdigest()


def parse_strategies(text: str) -> list[Contender]:
    """`Interruption,Snapshot/Memory,Recompute`; the first is what the others are compared with. Raises UserError."""
    found = [_contender(part.strip()) for part in text.split(",") if part.strip()]
    if len(found) < 2:
        raise UserError(
            f"--strategies {text}: name at least two, parted by commas; the first is compared with the others"
        )
    labels = [contender.label for contender in found]
    if len(set(labels)) != len(labels):
        raise UserError(f"--strategies {text}: names a strategy twice")
    return found


def _contender(label: str) -> Contender:
    name, slash, variant = label.partition("/")
    known = [value for value in built_values("oldLogits.strategy") if value != "Auto"]
    if name not in known:
        near = did_you_mean(name, known)
        raise UserError(
            f'--strategies: unknown strategy "{name}"; allowed: {", ".join(known)}'
            + (f"; did you mean {near}?" if near else "")
        )
    strategy = Strategy(name)
    if slash:
        _, values = VARIANTS.get(strategy, ("", ()))
        if variant not in values:
            allowed = ", ".join(f"{name}/{value}" for value in values) or f"{name} alone, it has no variants"
            raise UserError(f'--strategies: unknown variant "{label}"; allowed: {allowed}')
    return Contender(label, strategy, variant)


def plan(job: AsyncPPOJob, contenders: Sequence[Contender], seeds: int, sweep: Sweep | None, where: str) -> list[Cell]:
    """Every cell, seeds outermost so that an unfinished study has whole pairs. Raises ManifestError for a job that a cell's values make
    invalid."""
    values = sweep.values if sweep is not None else (None,)
    cells = []
    for seed in range(job.spec.seed, job.spec.seed + seeds):
        for value in values:
            for contender in contenders:
                fields = _settings(job, contender) | {"seed": seed}
                if sweep is not None:
                    fields[sweep.path] = value
                what = f"{where} with {contender.label}" + (f", {sweep.path} {value}" if sweep is not None else "")
                cells.append(Cell(contender, seed, value, with_fields(job, fields, what)))
    return cells


def _settings(job: AsyncPPOJob, contender: Contender) -> dict[str, Any]:
    old = job.spec.old_logits
    same = old.strategy is contender.strategy
    fields: dict[str, Any] = {
        "oldLogits.strategy": contender.strategy.value,
        "oldLogits.scoring": (old.scoring if same else Scoring.BARRIER).value,
    }
    dedicated = contender.strategy is Strategy.DEDICATED
    fields["oldLogit.replicas"] = max(1, job.spec.old_logit.replicas) if dedicated else 0
    if not contender.strategy.exact and old.on_unavailable is OnUnavailable.FALLBACK:
        fields["oldLogits.onUnavailable"] = OnUnavailable.FAIL.value
    if contender.variant:
        fields[VARIANTS[contender.strategy][0]] = contender.variant
    return fields
