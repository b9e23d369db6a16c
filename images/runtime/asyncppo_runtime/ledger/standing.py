"""What a ledger on disk says of a run before anybody goes on with it. Owns that view; reads only.

Does not own what else lies in the learner's folder, nor what it means when the two disagree (`asyncppo_runtime.learner.resumption`).
"""

from dataclasses import dataclass
from pathlib import Path

from asyncppo_runtime.ledger import checkpoints
from asyncppo_runtime.ledger import versions as publications
from asyncppo_runtime.ledger.database import looking, unused


@dataclass(frozen=True, slots=True)
class Standing:
    """job_uid: whose it is. newest: the newest published version, -1 before the first. versions: all of them, abandoned ones included.
    checkpoints: committed, of the lineage that goes on."""

    job_uid: str
    newest: int
    versions: frozenset[int]
    checkpoints: frozenset[int]


def standing(path: Path) -> Standing:
    """Examine the ledger and say where the run is; nothing is written. Raises LedgerUnusableError, also while a learner uses it."""
    with unused(path), looking(path) as looked, looked.database.reading():
        db = looked.database
        return Standing(
            str(db.fact("job_uid")),
            int(db.fact("version")),
            frozenset(row.record.version for row in publications.versions(db)),
            frozenset(row.version for row in checkpoints.checkpoints(db) if not row.abandoned),
        )
