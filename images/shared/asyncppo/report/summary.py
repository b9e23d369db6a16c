"""The summary of a finished run: made from the learner's last status, written as summary.json, read back.

Owns what is in it and its file. Does not own the figures themselves (the learner measures them) nor how they are shown
(`words.py`, `picture.py`).
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError
from asyncppo.report.measures import LearnerStatus, OldLogits, Summary


def summarize(
    job: AsyncPPOJob,
    status: LearnerStatus | None,
    phase: str,
    message: str,
    rollout_time: Mapping[str, Mapping[str, float]],
    restarts: Mapping[str, int],
) -> Summary:
    """The run's summary. `status` is the last that the learner told, None when it never said anything.

    phase: Complete, Failed or Stopped. rollout_time: rollout → activity → seconds.
    """
    strategy = job.spec.old_logits.strategy
    if status is None:
        status = LearnerStatus(
            job=job.metadata.name, phase=phase, old_logits=OldLogits(strategy=strategy, exact=strategy.exact)
        )
    time = {"learner": dict(status.time)} if status.time else {}
    return Summary(
        job=job.metadata.name,
        phase=phase,
        message=message,
        strategy=status.old_logits.strategy,
        exact=status.old_logits.exact,
        updates=status.update,
        versions=status.versions,
        seed=job.spec.seed,
        reward=status.reward,
        old_logits=status.old_logits,
        staleness=status.staleness,
        staleness_bound=job.spec.staleness.max_versions,
        discrepancy=status.discrepancy,
        ledger=status.ledger,
        syncs=status.syncs,
        throughput=status.throughput,
        wall_seconds=status.wall_seconds,
        time=time | {name: dict(seconds) for name, seconds in rollout_time.items() if seconds},
        restarts=dict(restarts),
        failures=status.failures,
        learning=status.learning,
        notes=status.notes,
    )


def encode_summary(summary: Summary) -> bytes:
    """summary.json's bytes, indented for people."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def read_summary(path: Path) -> Summary:
    """Read a summary.json. Raises UserError when there is none or it is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no summary yet; a run writes it when it ends") from error
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: is not a summary of this version of asyncppo: {error}") from error
