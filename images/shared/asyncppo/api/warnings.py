"""What is valid and yet most likely not what its author wants: said when a job is validated, started and accepted; never refused.

Owns the table. Does not own what is refused (`rules.py`, `implemented.py`) nor where a warning is shown.
"""

from collections.abc import Callable
from dataclasses import dataclass

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.problems import Problem, shown
from asyncppo.api.training import Precision

BFLOAT16_RATE = 1e-4
"""Below this peak rate an optimizer that holds its parameters in bfloat16 loses most of each step to rounding."""


@dataclass(frozen=True)
class SpecWarning:
    """One line of the table. path: the field, below `spec`. found: its value, as the message shows it. applies: when it is said."""

    name: str
    path: str
    found: Callable[[AsyncPPOJobSpec], object]
    applies: Callable[[AsyncPPOJobSpec], bool]
    message: str
    remedy: str


WARNINGS: tuple[SpecWarning, ...] = (
    SpecWarning(
        name="BFloat16Steps",
        path="optimizer.precision",
        found=lambda spec: spec.optimizer.precision.value,
        applies=lambda spec: (
            spec.optimizer.precision is Precision.BFLOAT16 and spec.optimizer.learning_rate < BFLOAT16_RATE
        ),
        message="with learningRate below 1e-4 most of each step is rounded away, because the learner keeps no float32 copy of the "
        "parameters: at 2e-6 they go 2 % of the way",
        remedy="use Float32 (the engine may stay in BFloat16), or a learningRate of 1e-4 or more",
    ),
    SpecWarning(
        name="ModelGoesWithJob",
        path="ttlSecondsAfterFinished",
        found=lambda spec: spec.ttl_seconds_after_finished,
        applies=lambda spec: spec.ttl_seconds_after_finished is not None and not spec.learner.retain_storage,
        message="so many seconds after its end the job is deleted on a cluster, and with it its volume and the trained model",
        remedy="copy them before that, or set learner.retainStorage: true",
    ),
)


def warnings(spec: AsyncPPOJobSpec) -> list[Problem]:
    """Every warning that applies, in the words of a problem."""
    return [
        Problem(f"spec.{each.path}", f"{shown(each.found(spec))}: {each.message}", each.remedy)
        for each in WARNINGS
        if each.applies(spec)
    ]
