"""The ledger against the protocol's reference rules (`asyncppo.sync.arbiter`), which are explored exhaustively: the same messages go to
both, and both must take or refuse them alike and come to the same view. Seeded walks over every column."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest
from tests.unit.ledger.builders import JOB, Job, manifest, published_hash, record, settings, trajectory

from asyncppo.errors import RefusedError
from asyncppo.sync import arbiter
from asyncppo.sync.books import Books, Held, Piece
from asyncppo.sync.books import SegmentState as BookState
from asyncppo.sync.columns import COLUMNS
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Manifest, Trajectory, segment_digest
from asyncppo.wire.membership import Join, MemberState, Ready
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall
from asyncppo_runtime.ledger.errors import LedgerRefusedError

NAMES = ("r0", "r1")
STEPS = 120


class Both:
    """The ledger and the books, and the two rollouts that speak to them."""

    def __init__(self, path: Path, column: str) -> None:
        self.job = Job(path, settings(seal_rule=COLUMNS[column].rule, group_size=1))
        self.job.publish(0)
        self.books = Books(job_uid=JOB, column=column)
        self.leases: dict[int, Lease] = {}
        self.holder: dict[int, str] = {}
        self.held: dict[int, list[int]] = {}
        self.spoiled: set[int] = set()

    # --- the same message to both -------------------------------------------------------------------------------------------
    def tell(self, ledger: Callable[[], object], books: Callable[[], Books]) -> bool:
        """Whether it was taken."""
        try:
            after, by_arbiter = books(), ""
        except RefusedError as error:
            after, by_arbiter = self.books, error.reason
        try:
            ledger()
            by_ledger = ""
        except LedgerRefusedError as error:
            by_ledger = error.reason
        assert bool(by_ledger) is bool(by_arbiter), (
            f"the ledger says {by_ledger or 'yes'}, the arbiter {by_arbiter or 'yes'}"
        )
        self.books = after
        return not by_ledger

    def envelope(self, name: str, *, older: bool = False) -> Envelope:
        member = self.books.member(name)
        number = 0 if member is None else member.incarnation - older
        return Envelope(job_uid=JOB, epoch=self.books.epoch, target=name, incarnation=number)

    # --- members ------------------------------------------------------------------------------------------------------------
    def join(self, name: str) -> None:
        self.tell(
            lambda: self.job.ledger.join(name, "http://x", 0.0),
            lambda: arbiter.join(self.books, Join(JOB, name, "http://x"), record)[0],
        )

    def ready(self, name: str, version: int, older: bool) -> None:
        envelope = self.envelope(name, older=older)
        self.tell(
            lambda: self.job.ledger.ready(envelope, version, published_hash(version), 0.0),
            lambda: arbiter.ready(self.books, Ready(envelope, version, published_hash(version))),
        )

    # --- epochs -------------------------------------------------------------------------------------------------------------
    def begin(self, owner: str, expected: int) -> None:
        if self.books.open or self.books.batch or self.books.stepped:
            call = Begin(JOB, owner, expected)
            self.tell(lambda: self.job.ledger.begin(owner, expected, 0.0), lambda: arbiter.begin(self.books, call))

    def seal(self, owner: str, epoch: int, fenced: list[str], honest: bool) -> None:
        members = [name for name, _ in self.books.frozen if name not in fenced]
        manifests = [self.manifest(name) for name in members] if honest else []
        call = Seal(JOB, owner, epoch, self.books.version, members, manifests, fenced)
        self.tell(
            lambda: self.job.ledger.seal(epoch, owner, call.version, members, manifests, fenced, 0.0),
            lambda: arbiter.seal(self.books, call),
        )

    def manifest(self, name: str) -> Manifest:
        """Everything `name` holds, but what was refused for good."""
        bodies = [
            self.body(lease) for lease, holder in self.holder.items() if holder == name and lease not in self.spoiled
        ]
        return manifest(self.envelope(name), self.books.version, bodies)

    def publish(self, owner: str, epoch: int) -> None:
        made = record(self.books.published + 1)

        def ledger() -> None:
            view = self.job.ledger.view()
            if view.epoch != epoch or view.owner != owner or not view.open:
                raise LedgerRefusedError("EpochTaken", "the learner's own check")
            if not view.unannounced:
                self.job.ledger.publish(made, None, [], [], b"", 0.0)

        self.tell(ledger, lambda: arbiter.published(self.books, SyncCall(JOB, owner, epoch)))

    def finish(self, owner: str, epoch: int, fenced: list[str]) -> None:
        loaded = [name for name, _ in self.books.frozen if name not in fenced]
        call = Finish(JOB, owner, epoch, loaded, fenced, {})

        def ledger() -> None:
            view = self.job.ledger.view()
            if view.open and not view.sealed and view.epoch == epoch and view.owner == owner:
                for name in {member.name for member in view.members} & set(fenced):
                    self.job.ledger.fence(name, "test", 0.0)
                self.job.ledger.roll_back(epoch, 0.0)
            elif view.open or view.epoch != epoch or view.owner != owner:
                self.job.ledger.finish(epoch, owner, loaded, fenced, {}, 0.0)

        self.tell(ledger, lambda: arbiter.finish(self.books, call))

    # --- leases and segments ------------------------------------------------------------------------------------------------
    def grant(self, name: str) -> None:
        member = self.books.member(name)
        if member is not None and member.state is MemberState.READY and not self.books.sealed:
            for lease in self.job.grant(self.envelope(name), 1, allowed=1000):
                self.leases[lease.lease_id], self.holder[lease.lease_id] = lease, name
                self.held[lease.lease_id] = []
                granted = Held(lease.lease_id, name, member.incarnation)
                self.books = msgspec.structs.replace(self.books, leases=(*self.books.leases, granted))

    def body(self, lease: int) -> Trajectory:
        return trajectory(self.leases[lease], self.held[lease], finished=False, tokens=1)

    def upload(self, lease: int, sender: str, older: bool) -> None:
        """All that is held of one lease, by its holder or by somebody else."""
        if lease in self.spoiled:
            return
        envelope, body = self.envelope(sender, older=older), self.body(lease)
        pieces = [
            Piece(lease, part.index, part.version, segment_digest(body.token_ids, part)) for part in body.segments
        ]
        refused: list[Piece] = []

        def books() -> Books:
            after, out = arbiter.receive(self.books, envelope, pieces)
            refused.extend(out)
            return after

        replies = []
        taken = self.tell(lambda: replies.append(self.job.ledger.receive(envelope, [body], 0.0).reply), books)
        if not taken:
            return
        live = next(held.live for held in self.books.leases if held.lease_id == lease)
        if sender == self.holder[lease] and live:
            # The ledger gives up the whole trajectory with its first segment lost; the arbiter only ever looks at one.
            assert bool(replies[0].refused) is bool(refused)
            if refused:
                assert replies[0].refused[0].index == refused[0].index
                self.decide(lease)
        else:
            assert replies[0].accepted == []

    def decide(self, lease: int) -> None:
        """No token of this lease is open any more: discarded in the ledger, and as good as scored for the books."""
        self.spoiled.add(lease)
        segments = tuple(
            msgspec.structs.replace(item, state=BookState.SCORED) if item.lease_id == lease else item
            for item in self.books.segments
        )
        self.books = msgspec.structs.replace(self.books, segments=segments)

    def expire(self, lease: int) -> None:
        if not self.books.open:
            # The clock is the ledger's own affair: here it is given back, which ends it likewise.
            name = self.holder[lease]
            member = self.books.member(name)
            if member is not None and member.state in (MemberState.READY, MemberState.JOINING):
                self.job.ledger.give_back(self.envelope(name), [lease], 0.0)
                self.books = arbiter.expire(self.books, lease)
                self.decide(lease)

    def score(self) -> None:
        self.job.score_all()
        self.books = arbiter.scored(self.books)

    def compare(self) -> None:
        view = self.job.ledger.view()
        books = self.books
        assert (view.epoch, view.owner, view.open) == (books.epoch, books.owner, books.open)
        assert view.sealed == (books.open and books.sealed)
        assert (view.announced, view.version, view.sealed_version) == (
            books.version,
            books.published,
            books.sealed_version,
        )
        if books.open:
            assert {(member.name, member.incarnation) for member in view.members} == set(books.frozen)
        assert {(m.name, m.incarnation, m.state, m.version) for m in self.job.ledger.members()} == {
            (m.name, m.incarnation, m.state, m.version) for m in books.members
        }
        self.job.check()


def step(both: Both, chance: Random) -> None:
    """One message, mostly a sensible one."""
    books, name = both.books, chance.choice(NAMES)
    owner = books.owner if books.open and chance.random() < 0.8 else chance.choice(["a", "b"])
    epoch = books.epoch - (chance.random() < 0.1)
    fenced = [other for other in NAMES if chance.random() < 0.2]
    older = chance.random() < 0.1
    lease = chance.choice(sorted(both.leases)) if both.leases else None
    member = books.member(name)
    act = chance.choice(
        ["join", "ready", "ready", "begin", "seal", "publish", "finish", "grant", "sample", "upload", "score", "other"]
    )
    if act == "join" and (member is None or member.state is MemberState.FENCED or chance.random() < 0.2):
        both.join(name)
    elif act == "ready" and member is not None:
        both.ready(name, chance.choice([books.version, books.version, books.published]), older)
    elif act == "begin":
        both.books = msgspec.structs.replace(books, batch=True)
        both.begin(chance.choice(["a", "b"]), epoch)
    elif act == "seal":
        if chance.random() < 0.7:
            for number, holder in both.holder.items():
                both.upload(number, holder, False)
            both.score()
        both.seal(owner, epoch, fenced, chance.random() < 0.9)
    elif act == "publish":
        both.publish(owner, epoch)
    elif act == "finish":
        both.finish(owner, epoch, fenced)
    elif act == "grant":
        both.grant(name)
    elif act == "score":
        both.score()
    elif lease is not None and act == "sample" and lease not in both.spoiled and len(both.held[lease]) < 4:
        holder = books.member(both.holder[lease])
        if holder is not None and holder.version >= 0:
            both.held[lease].append(holder.version)
    elif lease is not None and act == "upload" and both.held[lease]:
        both.upload(lease, name if chance.random() < 0.2 else both.holder[lease], older)
    elif lease is not None and act == "other" and chance.random() < 0.3:
        both.expire(lease)


@pytest.mark.parametrize("column", list(COLUMNS))
@pytest.mark.parametrize("seed", range(4))
def test_ledger_and_arbiter_decide_alike(tmp_path: Path, column: str, seed: int) -> None:
    both, chance = Both(tmp_path / "ledger.db", column), Random(f"{column} {seed}")
    for _ in range(STEPS):
        step(both, chance)
        both.compare()
    both.job.ledger.close()
