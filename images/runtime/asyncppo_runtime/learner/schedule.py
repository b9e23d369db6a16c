"""The learning rate of each update. Pure."""

import math

from asyncppo.api.training import OptimizerSpec, Schedule
from asyncppo.report.measures import UpdateMetrics


def learning_rate(spec: OptimizerSpec, update: int, updates: int) -> float:
    """Rate of update `update` (counted from 0) of `updates`: linear warm-up to the peak, then the schedule's decay to 0."""
    warm = min(1.0, (update + 1) / (spec.warmup_updates + 1)) if spec.warmup_updates else 1.0
    span = max(1, updates - spec.warmup_updates)
    done = min(1.0, max(0, update - spec.warmup_updates) / span)
    decay = {
        Schedule.CONSTANT: 1.0,
        Schedule.LINEAR: 1.0 - done,
        Schedule.COSINE: 0.5 * (1.0 + math.cos(math.pi * done)),
    }[spec.schedule]
    return spec.learning_rate * warm * decay


def jump(spec: OptimizerSpec, last: UpdateMetrics | None, updates: int) -> str:
    """What to say at a start when the schedule no longer gives the newest update the rate it had: `algorithm.updates` was raised, and
    Linear and Cosine decay to its end. Empty when the rate goes on as it was. last: the newest update trained."""
    if last is None or last.update >= updates:
        return ""
    had, would = last.learning_rate, learning_rate(spec, last.update - 1, updates)
    if math.isclose(had, would, rel_tol=1e-6):
        return ""
    after = learning_rate(spec, last.update, updates)
    return (
        f"the {spec.schedule} schedule now ends at update {updates}: the learning rate goes from {had:.4g} in update {last.update} to "
        f"{after:.4g} in update {last.update + 1}. The decay always spans algorithm.updates; with Constant it would not change"
    )
