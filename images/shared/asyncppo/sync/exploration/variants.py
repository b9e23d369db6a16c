"""Three protocols that look right and are not: each leaves out one check. The exploration must catch every one, with a trace.

Owns the broken rules and the budgets that suffice to see them break. Does not own the right ones (`asyncppo.sync.books`).
"""

from collections.abc import Iterable

import msgspec

from asyncppo.sync.books import RULES, Books, Held, Rules, SegmentState
from asyncppo.sync.columns import SealRule
from asyncppo.wire.experience import Manifest


class Variant(msgspec.Struct, frozen=True):
    """A broken protocol. breaks: the invariant that finds it out. column, faults, samples: where to look."""

    name: str
    what: str
    breaks: str
    column: str
    faults: int
    samples: tuple[int, ...]
    rules: Rules


def _fewer_than_counted(books: Books, manifests: Iterable[Manifest]) -> list[tuple[int, int]]:
    """As many segments as the manifests name are there: but are they the ones?"""
    scored_only = books.rule is SealRule.SCORED
    there = sum(item.state is SegmentState.SCORED or not scored_only for item in books.segments)
    entries = [(entry.lease_id, entry.index) for manifest in manifests for entry in manifest.entries]
    return entries[there:]


def _same_incarnation(books: Books, name: str) -> int:
    """Whoever comes back under a name is taken for the one who was there."""
    member = books.member(name)
    return member.incarnation if member is not None else books.incarnations + 1


def _always_live(lease: Held) -> bool:
    """Whoever holds a lease is believed, expired or not."""
    return True


VARIANTS = (
    Variant(
        "count-for-set",
        "Flush compares how many segments arrived with how many were announced, not which",
        "ends-once",
        "Barrier",
        1,
        (1, 1),
        msgspec.structs.replace(RULES, missing=_fewer_than_counted),
    ),
    Variant(
        "epoch-without-incarnation",
        "messages are told apart by epoch alone: a member that joins again keeps its number",
        "sealed-means-closed",
        "Snapshot",
        1,
        (1, 0),
        msgspec.structs.replace(RULES, incarnation=_same_incarnation),
    ),
    Variant(
        "lease-without-expiry",
        "a trajectory is taken without a look at whether its lease has ended",
        "ends-once",
        "Snapshot",
        1,
        (1, 0),
        msgspec.structs.replace(RULES, live=_always_live),
    ),
)
"""The broken variants, by the check they leave out."""
