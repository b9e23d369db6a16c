"""The real ledger and the reference rules that the exploration explores: the same calls, accepted or refused alike, the same view.

Epochs, members, seals and receipts of the columns that flush. The ledger's own tests hold it against a model of everything else.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.ledger.builders import JOB, Job, manifest, record, trajectory
from tests.unit.ledger.builders import settings as ledger_settings

from asyncppo.errors import RefusedError
from asyncppo.sync import arbiter
from asyncppo.sync.books import Books, Held, Piece
from asyncppo.sync.columns import SealRule
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Manifest, ManifestEntry, Trajectory, segment_digest
from asyncppo.wire.membership import Join, MemberState, Ready
from asyncppo.wire.syncing import Begin, Finish, Seal, SyncCall
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import SealRule as LedgerRule

NAMES = ("a", "b")
OWNERS = ("c0", "c1")
COLUMN_OF = {SealRule.SCORED: "Barrier", SealRule.RECORDED: "Overlapped"}


class Pair:
    """A ledger and books that have been told the same."""

    def __init__(self, path: Path, rule: SealRule) -> None:
        self.job = Job(path, ledger_settings(seal_rule=LedgerRule(rule.value), group_size=1, max_attempts=100))
        self.job.publish(0)
        self.books = Books(job_uid=JOB, column=COLUMN_OF[rule], batch=True)
        self.held: dict[int, Trajectory] = {}
        self.leases: dict[str, int] = {}

    def envelope(self, name: str) -> Envelope:
        member = self.books.member(name)
        number = member.incarnation if member is not None else 99
        return Envelope(job_uid=JOB, epoch=self.books.epoch, target=name, incarnation=number)

    def both(self, real: Callable[[], object], reference: Callable[[], Books]) -> None:
        """Told to both; they agree on whether it may be."""
        refusal: RefusedError | None = None
        ledgers: LedgerRefusedError | None = None
        books = self.books
        try:
            books = reference()
        except RefusedError as error:
            refusal = error
        try:
            real()
        except LedgerRefusedError as error:
            ledgers = error
        assert (refusal is None) == (ledgers is None), f"the reference: {refusal}; the ledger: {ledgers}"
        self.books = replace(books, batch=True)
        self.compare()

    def compare(self) -> None:
        view, books = self.job.ledger.view(), self.books
        assert (view.epoch, view.owner, view.open) == (books.epoch, books.owner, books.open)
        assert (view.open and view.sealed) == (books.open and books.sealed)
        assert (view.announced, view.version, view.sealed_version) == (
            books.version,
            books.published,
            max(books.sealed_version, books.version - 1),
        )
        if books.open:
            assert {(each.name, each.incarnation) for each in view.members} == set(books.frozen)
        real = {each.name: (each.incarnation, each.state) for each in self.job.ledger.members()}
        assert real == {each.name: (each.incarnation, each.state) for each in books.members}

    # --- what may be told -------------------------------------------------------------------------------------------------
    def join(self, chance: Random) -> None:
        name = chance.choice(NAMES)
        message = Join(JOB, name, f"http://{name}")
        self.both(
            lambda: self.job.ledger.join(name, message.url, 0.0),
            lambda: arbiter.join(self.books, message, record)[0],
        )
        self.leases.pop(name, None)

    def ready(self, chance: Random) -> None:
        sender, version = self.envelope(chance.choice(NAMES)), self.books.version
        told = f"published-{version}"
        self.both(
            lambda: self.job.ledger.ready(sender, version, told, 0.0),
            lambda: arbiter.ready(self.books, Ready(sender, version, told)),
        )

    def begin(self, chance: Random) -> None:
        call = Begin(JOB, chance.choice(OWNERS), self.books.epoch - (chance.random() < 0.2))
        self.both(
            lambda: self.job.ledger.begin(call.coordinator, call.expected_epoch, 0.0),
            lambda: arbiter.begin(self.books, call),
        )

    def score(self, chance: Random) -> None:
        self.job.score_all()
        self.books = arbiter.scored(self.books)

    def seal(self, chance: Random) -> None:
        fenced = [name for name in NAMES if chance.random() < 0.2]
        kept = [name for name in NAMES if name not in fenced and chance.random() < 0.95]
        told = [self.manifest(name, chance) for name in kept if chance.random() < 0.95]
        version = self.books.version
        owner = self.books.owner if chance.random() < 0.9 else "c9"
        call = Seal(JOB, owner, self.books.epoch, version, kept, told, fenced)
        self.both(
            lambda: self.job.ledger.seal(call.epoch, owner, version, kept, told, fenced, 0.0),
            lambda: arbiter.seal(self.books, call),
        )

    def manifest(self, name: str, chance: Random) -> Manifest:
        """What a member of this name would answer a Flush with; now and then with a segment that is nowhere."""
        mine = self.held.get(self.leases.get(name, 0))
        told = manifest(self.envelope(name), self.books.version, [mine] if mine is not None else [])
        if mine is not None and chance.random() < 0.2:
            return Manifest(
                told.member, told.incarnation, told.version, [*told.entries, ManifestEntry(mine.lease_id, 77, 1, "?")]
            )
        return told

    def publish(self, chance: Random) -> None:
        books = self.books
        if not books.open or books.stepped:
            return
        made = record(books.published + 1)
        self.both(
            lambda: self.job.ledger.publish(made, None, [], [], b"", 0.0),
            lambda: arbiter.published(books, SyncCall(JOB, books.owner, books.epoch)),
        )

    def finish(self, chance: Random) -> None:
        books = self.books
        fenced = [name for name in NAMES if chance.random() < 0.2]
        loaded = [name for name in NAMES if name not in fenced and chance.random() < 0.95]
        call = Finish(JOB, books.owner, books.epoch, loaded, fenced, {})
        if books.open and not books.sealed:
            self.both(
                lambda: self.job.ledger.roll_back(books.epoch, 0.0),
                lambda: arbiter.finish(books, replace(call, loaded=[], fenced=[])),
            )
            return
        if not books.open:
            # The learner's service answers for an epoch that was rolled back; the ledger knows only of finished ones.
            return
        self.both(
            lambda: self.job.ledger.finish(call.epoch, call.coordinator, loaded, fenced, {}, 0.0),
            lambda: arbiter.finish(books, call),
        )

    def lease(self, chance: Random) -> None:
        name = chance.choice(NAMES)
        member = self.books.member(name)
        if member is None or member.state is not MemberState.READY or self.books.open or name in self.leases:
            return
        (granted,) = self.job.ledger.grant(self.envelope(name), self.books.version, 1, 1000, 30.0, 0.0)
        self.leases[name] = granted.lease_id
        self.held[granted.lease_id] = trajectory(granted, [self.books.version], finished=False)
        self.books = replace(self.books, leases=(*self.books.leases, Held(granted.lease_id, name, member.incarnation)))

    def upload(self, chance: Random) -> None:
        name = chance.choice(NAMES)
        mine = self.held.get(self.leases.get(name, 0))
        if mine is None:
            return
        sender = self.envelope(name)
        pieces = [
            Piece(mine.lease_id, part.index, part.version, segment_digest(mine.token_ids, part))
            for part in mine.segments
        ]
        refused: list[Piece] = []

        def reference() -> Books:
            books, gone = arbiter.receive(self.books, sender, pieces)
            refused.extend(gone)
            return books

        def real() -> None:
            receipt = self.job.ledger.receive(sender, [mine], 0.0)
            told = {(each.lease_id, each.index) for each in receipt.reply.refused}
            assert told == {(each.lease_id, each.index) for each in refused}

        self.both(real, reference)


MOVES = ("join", "ready", "ready", "lease", "lease", "upload", "upload", "begin", "score", "seal", "publish", "finish")


@pytest.mark.parametrize("rule", list(COLUMN_OF))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_the_ledger_keeps_the_rules_that_are_explored(
    rule: SealRule, seed: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncppo_runtime.ledger.database.SYNCHRONOUS", "OFF")
    chance = Random(seed)
    pair = Pair(tmp_path_factory.mktemp("ledger") / "ledger.db", rule)
    try:
        for _ in range(100):
            getattr(pair, chance.choice(MOVES))(chance)
        pair.job.check()
    finally:
        pair.job.ledger.close()


def test_the_walks_get_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise agreement would mean little."""
    monkeypatch.setattr("asyncppo_runtime.ledger.database.SYNCHRONOUS", "OFF")
    reached, scored = 0, 0
    for seed in range(20):
        chance = Random(seed)
        pair = Pair(tmp_path / f"{seed}.db", SealRule.SCORED)
        for _ in range(150):
            getattr(pair, chance.choice(MOVES))(chance)
        reached, scored = max(reached, pair.books.version), scored + len(pair.books.segments)
        pair.job.ledger.close()
    assert reached >= 2
    assert scored >= 10
