"""The cost model: what one update takes under each strategy. Pure arithmetic; docs/estimate.md derives it.

Owns the formulas. Does not own quantities (`workload.py`), speeds (`speeds.py`) nor the choice (`choice.py`).

With asynchronous training learner, rollouts and scorers work side by side, and only the stall stops all of them:

    update = stall + max(learner, sampling, workers)      synchronous (bound 0):  update = stall + learner + sampling + workers
"""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncppo.api.correction import Scoring, SnapshotMedium, Strategy
from asyncppo.estimate.speeds import Speeds
from asyncppo.estimate.workload import Workload

AVERAGE_BYTES = 4  # EWMA keeps its average in float32
OPTIMIZER_BYTES = 12  # a checkpoint's bytes per parameter: weights and two moments


@dataclass(frozen=True)
class Route:
    """A strategy in one of its forms."""

    strategy: Strategy
    scoring: Scoring = Scoring.BARRIER
    medium: SnapshotMedium = SnapshotMedium.DISK

    @property
    def label(self) -> str:
        """As on the command line of `asyncppo compare`."""
        if self.strategy is Strategy.INTERRUPTION:
            return f"{self.strategy}/{self.scoring}"
        return f"{self.strategy}/{self.medium}" if self.strategy is Strategy.SNAPSHOT else str(self.strategy)


ROUTES: tuple[Route, ...] = (
    Route(Strategy.INTERRUPTION, Scoring.BARRIER),
    Route(Strategy.INTERRUPTION, Scoring.OVERLAPPED),
    Route(Strategy.SNAPSHOT, medium=SnapshotMedium.MEMORY),
    Route(Strategy.SNAPSHOT, medium=SnapshotMedium.DISK),
    Route(Strategy.DEDICATED),
    Route(Strategy.EWMA),
    Route(Strategy.LOG_LINEAR),
    Route(Strategy.LINEAR),
    Route(Strategy.RECOMPUTE),
    Route(Strategy.ROLLOUT),
)


@dataclass(frozen=True)
class Estimate:
    """One route, per update. Seconds, bytes and tokens.

    live: versions whose weights are kept beside the resident ones. memory, disk: bytes of them. workers_memory: on other devices.
    forward_tokens: beside the policy's own forward. update = stall + the longest of learner, sampling and workers (or their sum).
    obstacle: why it cannot be had with the manifest's resources, "" if it can.
    """

    route: Route
    live: float
    memory: float
    disk: float
    workers_memory: float
    devices: int
    forward_tokens: float
    stall: float
    learner: float
    sampling: float
    workers: float
    update: float
    obstacle: str

    @property
    def held(self) -> float:
        """Bytes of all versions kept, wherever."""
        return self.memory + self.disk + self.workers_memory

    @property
    def bottleneck(self) -> str:
        """Which of those that work side by side is waited for."""
        parts = {"learner": self.learner, "sampling": self.sampling, "old-logit workers": self.workers}
        return max(parts, key=lambda name: parts[name])


def estimate(load: Workload, speeds: Speeds, routes: Sequence[Route] = ROUTES) -> list[Estimate]:
    """Every route's cost, in the order given."""
    return [_estimate(load, speeds, route) for route in routes]


def sampling_seconds(load: Workload, speeds: Speeds) -> float:
    """Of one batch: an episode takes its tokens at the pace of a full engine and its tools; `slots` of them run at once."""
    return load.batch * (load.sampled * load.concurrency / speeds.decode + load.tool_seconds) / load.slots


def loading_seconds(load: Workload, speeds: Speeds) -> float:
    """What every sync stalls sampling for: pause, every rollout's pull, and the prefill of what was interrupted (its KV is dropped)."""
    prefill = load.in_flight / load.rollouts * load.tokens / 2 / speeds.prefill
    return speeds.pause + load.rollouts * load.engine_size / speeds.pull + prefill


def scoring_tokens(load: Workload) -> float:
    """Of one batch: k versions in a trajectory, evenly spread, take prefixes 1/k, 2/k … 1 of it: (k + 1)/2 = 1 + crossings/2 of it."""
    return load.batch * load.tokens * (1 + load.crossings / 2)


def _estimate(load: Workload, speeds: Speeds, route: Route) -> Estimate:
    batch_tokens, version = load.batch * load.tokens, load.train_size
    sampling, stall = sampling_seconds(load, speeds), loading_seconds(load, speeds)
    publish = load.engine_size / speeds.disk
    learner = batch_tokens / speeds.train + speeds.step + publish
    workers = live = memory = disk = workers_memory = tokens = 0.0
    devices = 0
    ring = load.bound + 2.0  # the bound's versions, the newest, and one while a publication is under way
    match route.strategy:
        case Strategy.INTERRUPTION:
            tokens = scoring_tokens(load)
            flush = min(tokens, load.in_flight * load.tokens / 2)
            if route.scoring is Scoring.BARRIER:
                learner += (tokens - flush) / speeds.forward - speeds.step - publish
                stall += flush / speeds.forward + speeds.step + publish
            else:
                live, memory = 1.0, version
                learner += tokens / speeds.forward + version / speeds.copy
        case Strategy.SNAPSHOT:
            tokens, live = scoring_tokens(load), ring
            on_disk = route.medium is SnapshotMedium.DISK
            memory, disk = (0.0, ring * version) if on_disk else (ring * version, 0.0)
            each = version / (speeds.disk if on_disk else speeds.copy)
            learner += tokens / speeds.forward + (1 + load.bound + 1) * each
        case Strategy.DEDICATED:
            tokens, live, devices = scoring_tokens(load), ring, max(1, load.workers)
            disk, workers_memory = ring * version, devices * version
            workers = tokens / speeds.worker / devices + version / speeds.pull
        case Strategy.EWMA:
            tokens, live, memory = batch_tokens, 1.0, load.parameters * AVERAGE_BYTES
            learner += tokens / speeds.forward + 3 * memory / speeds.copy
        case _:
            pass
    side_by_side = (learner, sampling, workers)
    update = stall + (max(side_by_side) if load.bound else sum(side_by_side))
    obstacle = _obstacle(load, memory, disk)
    return Estimate(
        route, live, memory, disk, workers_memory, devices, tokens, stall, learner, sampling, workers, update, obstacle
    )


def _obstacle(load: Workload, memory: float, disk: float) -> str:
    own = 0.0 if load.accelerators else 4 * load.train_size  # weights, gradient and two moments
    if load.memory is not None and memory and own + memory > load.memory:
        return f"needs {(own + memory) / 2**30:.1f} GiB of the learner's memory, learner.resources has {load.memory / 2**30:.1f}"
    files = (load.bound + 2) * load.engine_size + load.checkpoints * load.parameters * OPTIMIZER_BYTES
    if load.storage is not None and disk and files + disk > load.storage:
        return f"needs {(files + disk) / 2**30:.1f} GiB of disk, learner.storage is {load.storage / 2**30:.1f}"
    return ""
