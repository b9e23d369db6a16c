"""How a published version gets from the learner to whoever loads it: one small interface, so that a transport is a class.

Owns the interface. HTTP is `pull.py`; a collective one would be another class behind the same two lines.
"""

from pathlib import Path
from typing import Protocol

from asyncppo.wire.versions import VersionRecord


class WeightTransport(Protocol):
    """Brings the file of a version here."""

    async def fetch(self, record: VersionRecord) -> Path:
        """The verified file (size and SHA-256 as in `record`), complete under its final name.

        Raises WeightsRefusedError, WeightsGoneError, WeightsStorageError, WeightsUnreachableError. Calling again resumes.
        """

    def keep(self, versions: set[int]) -> None:
        """Delete local files of all other versions."""
