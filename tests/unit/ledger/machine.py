"""The real ledger beside the model: every call is made on both. Owns the calls; the order they come in is the tests'.

Each call may first run into a full volume: it must then have changed nothing. After each step the figures, the states and both
equations must be the model's.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs
from tests.unit.ledger import builders
from tests.unit.ledger.builders import JOB, TTL, published_hash, record, score, trajectory
from tests.unit.ledger.comparison import compare
from tests.unit.ledger.model import Model, ModelMember
from tests.unit.ledger.volumes import FailingCommit

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Trajectory
from asyncppo_runtime.ledger.errors import LedgerRefusedError, LedgerStorageError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import SealRule

T = TypeVar("T")
NAMES = st.sampled_from(["r0", "r1"])
FAILS = st.booleans()
CHANCE = st.randoms(use_true_random=True)
TOKENS = 2


class RolloutMachine(RuleBasedStateMachine):
    """Two rollouts and what they do: join, lease, deliver, fail."""

    @initialize(seal_rule=st.sampled_from(SealRule))
    def start(self, seal_rule: SealRule) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-"))
        self.now = 0.0
        self.settings = builders.settings(group_size=2, seal_rule=seal_rule, max_attempts=2)
        self.model = Model(seal_rule, 2, 2)
        self.held: dict[int, list[int]] = {}
        self.sent: list[tuple[Trajectory, bool]] = []
        self.leases: dict[int, Lease] = {}
        self.ledger = Ledger.open(self.folder / "ledger.db", self.settings, self.now)
        self.ledger.publish(record(0), None, [], [], b"", self.now)
        self.model.publish([])
        for name in ("r0", "r1"):
            self.join(name, False)
            self.get_ready(name, False)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    @invariant()
    def same_as_the_model(self) -> None:
        if hasattr(self, "ledger"):
            compare(self.ledger, self.model)

    # --- how calls are made -------------------------------------------------------------------------------------------------
    def call(self, fails: bool, act: Callable[[], T]) -> T:
        """Do it, after (if `fails`) having been stopped at the commit."""
        if fails:
            db = self.ledger._db
            real = db.connection
            db.connection = FailingCommit(real, sqlite3.SQLITE_FULL)  # type: ignore[assignment]
            try:
                with contextlib.suppress(LedgerStorageError, LedgerRefusedError):
                    act()
            finally:
                db.connection = real
            compare(self.ledger, self.model)
        return act()

    def refused(self, fails: bool, act: Callable[[], object], *reasons: str) -> None:
        with pytest.raises(LedgerRefusedError) as refusal:
            self.call(fails, act)
        assert refusal.value.reason in reasons

    def envelope(self, name: str) -> Envelope:
        return Envelope(job_uid=JOB, epoch=0, target=name, incarnation=self.model.members[name].incarnation)

    def speaking(self, name: str) -> ModelMember | None:
        member = self.model.members.get(name)
        return member if member is not None and member.state != "fenced" else None

    def pick(self, chance: Random) -> int | None:
        return chance.choice(sorted(self.leases)) if self.leases else None

    # --- rollouts that work as they should ------------------------------------------------------------------------------------
    @rule(chance=CHANCE, keeps=st.booleans(), segments=st.integers(1, 2))
    def work(self, chance: Random, keeps: bool, segments: int) -> None:
        """Both lease, sample and deliver; perhaps one episode goes on."""
        for name in ("r0", "r1"):
            self.come_back(name, False)
            self.grant(name, 3, 4, False)
        busy = [lease for lease, found in self.model.leases.items() if found.state == "in_flight"]
        kept = chance.choice(busy) if busy and keeps else 0
        for lease in busy:
            for _ in range(segments):
                self.sample(lease)
            if lease != kept and self.held[lease] and self.speaking(self.model.leases[lease].member):
                self.deliver(lease, True, "environment_error" if chance.random() < 0.07 else "done", False)

    @rule(name=NAMES, fails=FAILS)
    def come_back(self, name: str, fails: bool) -> None:
        """A rollout that was fenced joins again; one that joined gets ready, if it may."""
        if self.speaking(name) is None:
            self.join(name, fails)
        self.get_ready(name, fails)

    @rule(name=NAMES, count=st.integers(1, 3), allowed=st.integers(0, 3), fails=FAILS)
    def grant(self, name: str, count: int, allowed: int, fails: bool) -> None:
        member = self.speaking(name)
        if member is None:
            return

        def act() -> list[Lease]:
            return self.ledger.grant(self.envelope(name), member.version, count, allowed, TTL, self.now)

        if member.state != "ready" or self.model.epoch.state == "sealed" or member.version != self.model.announced:
            self.refused(fails, act, "NotReady", "SyncActive", "StaleVersion")
        elif self.model.announced in self.model.abandoned:
            self.refused(fails, act, "SyncActive")
        else:
            before = len(self.model.leases)
            granted = self.call(fails, act)
            assert [(lease.group_id, lease.attempt) for lease in granted] == self.model.grant(name, count, allowed)
            assert [lease.lease_id for lease in granted] == list(range(before + 1, len(self.model.leases) + 1))
            for lease in granted:
                self.leases[lease.lease_id], self.held[lease.lease_id] = lease, []

    @rule(chance=CHANCE, finished=st.booleans(), ending=st.sampled_from(["done", "environment_error"]), fails=FAILS)
    def deliver_something(self, chance: Random, finished: bool, ending: str, fails: bool) -> None:
        lease = self.pick(chance)
        if lease is not None:
            self.sample(lease)
            self.deliver(lease, finished, ending, fails)

    @precondition(lambda self: self.sent)
    @rule(chance=CHANCE, fails=FAILS)
    def deliver_again(self, chance: Random, fails: bool) -> None:
        body, right_hash = chance.choice(self.sent)
        self.upload(body.lease_id, body, right_hash, fails)

    def sample(self, lease: int) -> None:
        """One more segment under the version its holder is on, whatever the learner thinks of that."""
        member = self.model.members[self.model.leases[lease].member]
        if member.version >= 0 and not self.delivered(lease) and len(self.held[lease]) < 5:
            self.held[lease].append(member.version)

    def delivered(self, lease: int) -> bool:
        return any(one.lease_id == lease and one.finished for one, _ in self.sent)

    def deliver(self, lease: int, finished: bool, ending: str, fails: bool) -> None:
        """What the holder has of it, once more or for the last time."""
        if not self.delivered(lease):
            body = trajectory(self.leases[lease], self.held[lease], finished=finished, tokens=TOKENS, end_reason=ending)
            self.sent.append((body, True))
            self.upload(lease, body, True, fails)

    def upload(self, lease: int, body: Trajectory, right_hash: bool, fails: bool) -> None:
        name = self.model.leases[lease].member
        if self.speaking(name) is None:
            self.refused(fails, lambda: self.ledger.receive(self.envelope(name), [body], self.now), "Fenced")
            return
        state = self.model.leases[lease].state
        receipt = self.call(fails, lambda: self.ledger.receive(self.envelope(name), [body], self.now))
        assert bool(receipt.reply.accepted) is (state in ("in_flight", "received"))
        versions = [part.version for part in body.segments]
        self.model.receive(lease, versions, TOKENS, body.finished, body.end_reason, right_hash)

    def join(self, name: str, fails: bool) -> None:
        member = self.call(fails, lambda: self.ledger.join(name, "http://x", self.now))
        assert member.incarnation == self.model.join(name)

    def get_ready(self, name: str, fails: bool) -> None:
        member = self.speaking(name)
        if member is None:
            return
        version = self.model.announced
        self.call(fails, lambda: self.ledger.ready(self.envelope(name), version, published_hash(version), self.now))
        if member.state == "joining" and not self.model.epoch.open:
            member.state, member.version = "ready", version

    def in_flight(self) -> list[int]:
        """Leases that have not ended."""
        return [lease for lease, found in self.model.leases.items() if found.state == "in_flight"]

    # --- mishaps ------------------------------------------------------------------------------------------------------------
    @rule(chance=CHANCE, fails=FAILS)
    def time_passes(self, chance: Random, fails: bool) -> None:
        """All but the leases whose holders send a heartbeat run out; those a newer incarnation does not name do so at once."""
        named = {lease for lease in self.in_flight() if chance.random() < 0.5}
        self.ledger.expire(self.now)
        self.now += TTL
        for name in ("r0", "r1"):
            mine = [lease for lease in self.in_flight() if self.model.leases[lease].member == name]
            member = self.speaking(name)
            if member is None:
                named -= set(mine)
                continue
            own = [lease for lease in mine if lease in named]
            assert self.ledger.heartbeat(self.envelope(name), 0, own, self.now).lost == []
            if not self.model.epoch.open:
                older = [lease for lease in mine if self.model.leases[lease].incarnation < member.incarnation]
                self.model.end(sorted(set(older) - set(own)), "expired", "lease_expired", counted=True)
        self.now += 1.0
        gone = [] if self.model.epoch.open else [lease for lease in self.in_flight() if lease not in named]
        assert self.call(fails, lambda: self.ledger.expire(self.now)) == gone
        self.model.end(gone, "expired", "lease_expired", counted=True)

    @rule(name=NAMES, how=st.sampled_from(["restart", "fence"]), fails=FAILS)
    def member_fails(self, name: str, how: str, fails: bool) -> None:
        if how == "restart":
            self.join(name, fails)
        else:
            self.call(fails, lambda: self.ledger.fence(name, "test", self.now))
            self.model.fence(name)

    @rule(chance=CHANCE, how=st.sampled_from(["give_back", "give_up", "wrong_hash", "conflict"]), fails=FAILS)
    def lease_fails(self, chance: Random, how: str, fails: bool) -> None:
        lease = self.pick(chance)
        if lease is None or self.speaking(self.model.leases[lease].member) is None:
            return
        found = self.model.leases[lease]
        if how == "give_back":
            self.call(fails, lambda: self.ledger.give_back(self.envelope(found.member), [lease], self.now))
            self.model.end([lease], "returned", "lease_returned", counted=False)
        elif how == "give_up":
            self.call(fails, lambda: self.ledger.discard_groups([found.group], "stale", self.now))
            self.model.discard_group(found.group, "stale")
        elif how == "wrong_hash" and not self.delivered(lease) and len(found.segments) < len(self.held[lease]):
            body = trajectory(self.leases[lease], self.held[lease], tokens=TOKENS)
            last = structs.replace(body.segments[-1], weights_hash="wrong")
            body = structs.replace(body, segments=[*body.segments[:-1], last])
            self.sent.append((body, False))
            self.upload(lease, body, False, fails)
        elif how == "conflict" and found.segments and found.state in ("in_flight", "received"):
            body = trajectory(self.leases[lease], self.held[lease], finished=False, tokens=TOKENS, salt=1)
            receipt = self.call(fails, lambda: self.ledger.receive(self.envelope(found.member), [body], self.now))
            assert receipt.violations == ["conflict"]
            self.model.fence(found.member)

    @rule()
    def crash(self) -> None:
        """The learner is gone between two calls; everything it acknowledged is there when it comes back."""
        self.ledger.close()
        self.now = 0.0
        self.ledger = Ledger.open(self.folder / "ledger.db", self.settings, self.now)

    # --- scores -------------------------------------------------------------------------------------------------------------
    @rule(count=st.integers(1, 20), fails=FAILS)
    def score_some(self, count: int, fails: bool) -> None:
        items = self.ledger.unscored(limit=count)
        wrong = [score(item, version=item.version + 1) for item in items] + [
            score(item, train_hash="wrong") for item in items
        ]
        assert len(self.ledger.record_scores(wrong, self.now).refused) == len(wrong)
        receipt = self.call(fails, lambda: self.ledger.record_scores([score(item) for item in items], self.now))
        assert (receipt.recorded, receipt.refused) == (len(items), [])
        for item in items:
            self.model.leases[item.key.lease_id].segments[item.key.index].state = "scored"

    @rule(fails=FAILS)
    def discard_a_segment(self, fails: bool) -> None:
        for item in self.ledger.unscored(limit=1):
            lease = self.model.leases[item.key.lease_id]
            self.call(fails, lambda key=item.key: self.ledger.discard_segments([key], "mislabelled", self.now))
            segment = lease.segments[item.key.index]
            segment.state, segment.reason = "discarded", "mislabelled"
            if lease.state == "in_flight":
                self.model.spoil(lease, "mislabelled")
            self.model.discard_trajectories([lease], "mislabelled")
