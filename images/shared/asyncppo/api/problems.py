"""What is wrong with a manifest, said so that its author can put it right.

Owns the shape of one problem, the error that carries them all, and how both read. Does not own what is a problem.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from asyncppo.errors import UserError

MOST_LISTED = 20
_LONGEST_VALUE = 80
_LONGEST_WORD = 80


@dataclass(frozen=True)
class Problem:
    """One problem. `path` is dotted and camelCase, as in the manifest; `what` says what was found and what is allowed;
    `remedy` says what to do."""

    path: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}" if self.path else f"{self.what}; {self.remedy}"


class ManifestError(UserError):
    """A manifest with problems: all of them, in `problems`; the message lists the first and counts the rest.

    unsaid: how many more there are that nobody has put into words."""

    def __init__(self, where: str, problems: Sequence[Problem], unsaid: int = 0) -> None:
        self.where = where
        self.problems = tuple(problems)
        found = len(self.problems) + unsaid
        count = "1 problem" if found == 1 else f"{found:,} problems"
        lines = [f"{where}: {count}", *(f"  {problem}" for problem in self.problems[:MOST_LISTED])]
        if found > MOST_LISTED:
            lines.append(f"  and {found - min(len(self.problems), MOST_LISTED):,} more; correct these first")
        super().__init__("\n".join(lines))


def shown(value: Any) -> str:
    """`value` as a reader of the manifest would write it, on one line, shortened."""
    if isinstance(value, dict):
        return "an empty object" if not value else f"an object with {_listed(value)}"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    text = (
        json.dumps(value, ensure_ascii=True) if value is None or isinstance(value, str | int | float) else repr(value)
    )
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… ({len(text)} characters)"


def did_you_mean(word: str, words: Sequence[str]) -> str | None:
    """The one of `words` that was probably meant, whatever its case; None when none is near."""
    if len(word) > _LONGEST_WORD:
        return None
    by_lower = {known.lower(): known for known in words}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def _listed(value: dict[Any, Any]) -> str:
    text = ", ".join(str(key) for key in list(value)[:6]) + (", …" if len(value) > 6 else "")
    return text if len(text) <= _LONGEST_VALUE else f"{len(value)} fields"
