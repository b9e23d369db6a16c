"""The learning rate of each update. Pure."""

import math

from asyncppo.api.training import OptimizerSpec, Schedule


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
