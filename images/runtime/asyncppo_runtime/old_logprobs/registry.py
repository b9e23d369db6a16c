"""The strategies by name: one line each. Owns nothing else."""

from asyncppo.api.correction import Strategy
from asyncppo_runtime.old_logprobs.dedicated import Dedicated
from asyncppo_runtime.old_logprobs.ewma import Ewma
from asyncppo_runtime.old_logprobs.interface import OldLogprobStrategy, StrategySettings
from asyncppo_runtime.old_logprobs.interpolation import Linear, LogLinear
from asyncppo_runtime.old_logprobs.interruption import Interruption
from asyncppo_runtime.old_logprobs.recompute import Recompute
from asyncppo_runtime.old_logprobs.rollout import Rollout
from asyncppo_runtime.old_logprobs.snapshot import Snapshot

STRATEGIES: dict[Strategy, type[OldLogprobStrategy]] = {
    Strategy.INTERRUPTION: Interruption,
    Strategy.SNAPSHOT: Snapshot,
    Strategy.DEDICATED: Dedicated,
    Strategy.EWMA: Ewma,
    Strategy.LOG_LINEAR: LogLinear,
    Strategy.LINEAR: Linear,
    Strategy.RECOMPUTE: Recompute,
    Strategy.ROLLOUT: Rollout,
}


def make_strategy(settings: StrategySettings) -> OldLogprobStrategy:
    """The strategy that a job names."""
    return STRATEGIES[settings.old_logits.strategy](settings)
