"""The messages between `asyncppo compare` and the program that trains cells on the virtual schedule. Owns their shapes only."""

from typing import Any

import msgspec


class CellWork(msgspec.Struct, frozen=True):
    """Train `job` (a manifest's path) and write `result` (a path). The rest is copied into the result."""

    name: str
    label: str
    value: Any
    fingerprint: str
    job: str
    result: str


class StudyWork(msgspec.Struct, frozen=True):
    """Cells in order. probe_only: tell the pace and train none."""

    cells: list[CellWork]
    probe_only: bool = False


class Pace(msgspec.Struct, frozen=True, tag="pace"):
    """Seconds one update takes here, sampling and measuring included."""

    seconds: float


class CellDone(msgspec.Struct, frozen=True, tag="done"):
    """A cell's result is on disk; seconds it took."""

    name: str
    seconds: float


Said = Pace | CellDone
"""A line of the program's standard output."""
