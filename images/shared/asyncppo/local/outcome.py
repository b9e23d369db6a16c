"""How a local run ended. Owns the shape; the exit code made of it is the CLI's."""

from dataclasses import dataclass, field
from pathlib import Path

from asyncppo.report.measures import LearnerStatus


@dataclass(frozen=True)
class Outcome:
    """How a run ended. phase: Complete, Failed or Stopped. words: the end of the failed role's log, `log_file`.

    bad_input: the failed role refused what it was given.
    """

    phase: str
    message: str
    status: LearnerStatus | None
    rollout_time: dict[str, dict[str, float]]
    restarts: dict[str, int]
    words: list[str] = field(default_factory=list)
    log_file: Path | None = None
    bad_input: bool = False
