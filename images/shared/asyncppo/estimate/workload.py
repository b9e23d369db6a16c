"""The quantities of a job that its costs follow from. Pure: a function of the spec and of what the caller knows better.

Owns where each quantity comes from. Does not own speeds (`speeds.py`) nor the formulas (`costs.py`).
"""

import re
from dataclasses import dataclass

from asyncppo.api.correction import SnapshotMedium
from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import BuiltinModel, Precision

BYTES = {Precision.FLOAT64: 8, Precision.FLOAT32: 4, Precision.BFLOAT16: 2}
BUILTIN_VOCABULARY = 32  # symbols of an environment, about
UNKNOWN_SIZE = 7e9
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", re.IGNORECASE)
_ACTIVE = re.compile(r"(?<![A-Za-z0-9.])A(\d+(?:\.\d+)?)([MB])(?![A-Za-z0-9])", re.IGNORECASE)
_UNITS = {"M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class Known:
    """What the user knows better than the manifest; None: as the manifest tells or as assumed.

    parameters: of the model. tokens: mean of a trajectory, prompt and tools included. tool_seconds: an episode waits for its environment.
    """

    parameters: float | None = None
    tokens: float | None = None
    tool_seconds: float = 0.0


@dataclass(frozen=True)
class Workload:
    """parameters: all; active: of them, those one token uses (mixture of experts). origin: where the size comes from.

    batch: trajectories of an update. tokens: of a trajectory. sampled: of them, by the model. bound: staleness.maxVersions.
    rollouts x concurrency: episodes at once. workers: old-logit ones on offer. train_bytes, engine_bytes: of one parameter.
    memory, storage: the learner's, in bytes; None: no limit is known. accelerators: of the learner, and of one rollout and
    one old-logit worker; 0: a CPU. A worker that names none is taken to be like a GPU of the learner, if that has some.
    """

    parameters: float
    active: float
    origin: str
    batch: int
    tokens: float
    sampled: float
    bound: int
    rollouts: int
    concurrency: int
    workers: int
    train_bytes: int
    engine_bytes: int
    medium: SnapshotMedium
    checkpoints: int
    memory: float | None
    storage: float | None
    accelerators: int
    engine_accelerators: int
    worker_accelerators: int
    tool_seconds: float

    @property
    def slots(self) -> int:
        """Episodes at once."""
        return self.rollouts * self.concurrency

    @property
    def train_size(self) -> float:
        """Bytes of one version on the train side."""
        return self.parameters * self.train_bytes

    @property
    def engine_size(self) -> float:
        """Bytes of one version as it is published."""
        return self.parameters * self.engine_bytes

    @property
    def crossings(self) -> float:
        """Publications that a trajectory lives through, on average: slots/batch by Little's law (each update takes `batch` out of `slots`
        that are under way), and no more than the bound allows."""
        return min(float(self.bound), self.slots / self.batch)

    @property
    def in_flight(self) -> int:
        """Episodes under way when a sync pauses sampling; none in synchronous training."""
        return min(self.slots, (self.bound + 1) * self.batch) if self.bound else 0


def workload(spec: AsyncPPOJobSpec, known: Known = Known()) -> Workload:
    """The job's quantities. Assumed where nothing tells: a trajectory fills half its context."""
    parameters, active, origin = _size(spec)
    if known.parameters is not None:
        parameters, active, origin = known.parameters, known.parameters, "as given"
    tokens = known.tokens if known.tokens is not None else spec.sampling.context_length / 2
    limits = spec.learner.resources.limits | spec.learner.resources.requests
    return Workload(
        parameters=parameters,
        active=active,
        origin=origin,
        batch=spec.algorithm.batch_groups * spec.algorithm.group_size,
        tokens=tokens,
        sampled=min(tokens, float(spec.environment.max_turns * spec.sampling.max_tokens)),
        bound=spec.staleness.max_versions,
        rollouts=max(1, spec.rollout.replicas),
        concurrency=spec.rollout.concurrency,
        workers=spec.old_logit.replicas,
        train_bytes=BYTES[spec.optimizer.precision],
        engine_bytes=BYTES[spec.rollout.engine.precision],
        medium=spec.old_logits.snapshot.medium,
        checkpoints=spec.checkpoint.keep,
        memory=amount(limits["memory"]) if "memory" in limits else None,
        storage=amount(spec.learner.storage),
        accelerators=_accelerators(limits),
        engine_accelerators=_accelerators(spec.rollout.resources.limits | spec.rollout.resources.requests),
        worker_accelerators=_accelerators(spec.old_logit.resources.limits | spec.old_logit.resources.requests)
        or min(1, _accelerators(limits)),
        tool_seconds=known.tool_seconds,
    )


def _size(spec: AsyncPPOJobSpec) -> tuple[float, float, str]:
    if spec.model.builtin is not None:
        size = builtin_parameters(spec.model.builtin)
        return size, size, "the built-in model's shape"
    name = str(spec.model.pretrained).rstrip("/").rpartition("/")[2]
    found = _SIZE.search(name)
    if found is None:
        return UNKNOWN_SIZE, UNKNOWN_SIZE, f"assumed: the name {name} tells no size"
    size = float(found[1]) * _UNITS[found[2].upper()]
    experts = _ACTIVE.search(name)
    active = float(experts[1]) * _UNITS[experts[2].upper()] if experts is not None else size
    return size, min(active, size), f"the name {name}"


def builtin_parameters(shape: BuiltinModel) -> float:
    """Of the Llama-shaped built-in: attention 4h², MLP 3hi and two norms a layer; two embeddings and a norm."""
    hidden = shape.hidden_size
    layer = 4 * hidden * hidden + 3 * hidden * shape.intermediate_size + 2 * hidden
    return float(shape.layers * layer + 2 * BUILTIN_VOCABULARY * hidden + hidden)


def amount(quantity: int | str) -> float:
    """A Kubernetes quantity as a number: "10Gi" is 10 x 2³⁰."""
    text = str(quantity).lstrip("+")
    powers = {"m": 1e-3, "": 1.0}
    powers |= {unit: 1e3 ** (place + 1) for place, unit in enumerate("kMGTPE")}
    powers |= {f"{unit}i": 1024.0 ** (place + 1) for place, unit in enumerate("KMGTPE")}
    for unit in sorted(powers, key=len, reverse=True):
        if unit and text.endswith(unit):
            return float(text.removesuffix(unit)) * powers[unit]
    return float(text)


def _accelerators(limits: dict[str, int | str]) -> int:
    return int(sum(amount(value) for name, value in limits.items() if "gpu" in name.lower()))
