"""The shapes of the reference ledger, and the three checks a protocol like this is most easily built without.

Owns what `arbiter.py` decides about. Does not own the decisions.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from asyncppo.sync.columns import COLUMNS, SealRule
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import Member


class SegmentState(StrEnum):
    """What the books say of a segment they hold."""

    UNSCORED = "Unscored"
    SCORED = "Scored"


class Held(msgspec.Struct, frozen=True):
    """One lease: who holds it, in which incarnation it was granted, and whether it has not ended."""

    lease_id: int
    member: str
    incarnation: int
    live: bool = True


class Recorded(msgspec.Struct, frozen=True):
    """One segment in the ledger."""

    lease_id: int
    index: int
    version: int
    digest: str
    state: SegmentState = SegmentState.UNSCORED


class Piece(msgspec.Struct, frozen=True):
    """One segment on its way in: what a receipt looks at."""

    lease_id: int
    index: int
    version: int
    digest: str


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """All that is durable. version: what members serve (announced); published: the newest version; sealed_version: no token sampled
    later under it or an older one counts. frozen: (name, incarnation) of the open epoch's members. batch: a step waits for a sync."""

    job_uid: str
    column: str
    epoch: int = 0
    owner: str = ""
    open: bool = False
    sealed: bool = False
    version: int = 0
    published: int = 0
    sealed_version: int = -1
    batch: bool = False
    finished: bool = False
    failed: str = ""
    incarnations: int = 0
    members: tuple[Member, ...] = ()
    frozen: tuple[tuple[str, int], ...] = ()
    leases: tuple[Held, ...] = ()
    segments: tuple[Recorded, ...] = ()

    @property
    def rule(self) -> SealRule:
        """What a seal demands."""
        return COLUMNS[self.column].rule

    @property
    def stepped(self) -> bool:
        """Whether the version to move to is published."""
        return self.published > self.version

    def member(self, name: str) -> Member | None:
        """The newest incarnation of `name`."""
        return next((member for member in self.members if member.name == name), None)


class Rules(msgspec.Struct, frozen=True):
    """The three checks that are easily left out. The exploration leaves out one at a time and shows what breaks.

    missing: what of the manifests the seal lacks. incarnation: the number a joining member gets. live: whether a lease still counts.
    """

    missing: Callable[[Books, Iterable[Manifest]], list[tuple[int, int]]]
    incarnation: Callable[[Books, str], int]
    live: Callable[[Held], bool]


def missing_entries(books: Books, manifests: Iterable[Manifest]) -> list[tuple[int, int]]:
    """(lease, index) of every manifest entry that the column's seal needs and the books lack. Compared as sets, by digest. Entries
    of ended leases are gone for good and no gap."""
    scored_only = books.rule is SealRule.SCORED
    held = {
        (item.lease_id, item.index, item.digest)
        for item in books.segments
        if item.state is SegmentState.SCORED or not scored_only
    }
    live = {lease.lease_id for lease in books.leases if lease.live}
    return [
        (entry.lease_id, entry.index)
        for manifest in manifests
        for entry in manifest.entries
        if entry.lease_id in live and (entry.lease_id, entry.index, entry.digest) not in held
    ]


def next_incarnation(books: Books, name: str) -> int:
    """A number no member has had."""
    return books.incarnations + 1


def lease_live(lease: Held) -> bool:
    """Whether the lease has not ended."""
    return lease.live


RULES = Rules(missing_entries, next_incarnation, lease_live)
