"""What the API names and no program does yet: refused plainly, never ignored.

Owns the table. When a part is built, its line here goes, and nothing else in the API changes.
"""

from collections.abc import Sequence
from typing import Any

from asyncppo.api.problems import Problem, shown
from asyncppo.api.schema import at, spec_schema

NOT_BUILT: tuple[tuple[str, str], ...] = (("weightSync.transport", "NCCL"),)
"""Enum values that are not built: (path below `spec`, value)."""

ONLY: tuple[tuple[str, Any], ...] = (("sampling.topP", 1.0),)
"""Fields of which one value only is built: (path below `spec`, that value)."""


def built_values(path: str, table: Sequence[tuple[str, str]] = NOT_BUILT) -> list[str]:
    """The values of the enum at `path` (below `spec`) that a job can use today."""
    return [str(value) for value in at(spec_schema(), path)["enum"] if (path, value) not in table]


def not_built(spec: Any) -> list[Problem]:
    """Every use of something that is not built, in a spec as JSON that need not be valid otherwise."""
    problems = []
    for path, value in NOT_BUILT:
        if _get(spec, path) == value:
            built = built_values(path)
            problems.append(_problem(path, value, f"use {'one of ' * (len(built) > 1)}{', '.join(built)}"))
    for path, value in ONLY:
        found = _get(spec, path)
        if isinstance(found, int | float) and not isinstance(found, bool) and found != value:
            problems.append(_problem(path, found, f"use {shown(value)}, or leave it out"))
    return problems


def _problem(path: str, found: Any, remedy: str) -> Problem:
    return Problem(f"spec.{path}", f"{shown(found)} is not implemented yet", remedy)


def _get(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
