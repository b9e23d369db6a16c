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
from tests.unit.ledger.builders import JOB, TTL, manifest, published_hash, record, score, trajectory
from tests.unit.ledger.comparison import compare
from tests.unit.ledger.model import Model, ModelMember

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, Trajectory
from asyncppo_runtime.ledger.errors import LedgerRefusedError, LedgerStorageError
from asyncppo_runtime.ledger.ledger import Ledger
from asyncppo_runtime.ledger.records import SealRule

T = TypeVar("T")
NAMES = st.sampled_from(["r0", "r1"])
OWNERS = st.sampled_from(["a", "b"])
FAILS = st.booleans()
CHANCE = st.randoms(use_true_random=True)
TOKENS = 2


class FullVolume:
    """A connection that cannot commit for want of space."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self.real = real

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self.real.execute(sql, *parameters)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


class LedgerMachine(RuleBasedStateMachine):
    """Two rollouts, two coordinators, one learner."""

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
            db.connection = FullVolume(real)  # type: ignore[assignment]
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

    @rule(chance=CHANCE, keeps=st.booleans(), fails=FAILS)
    def work_and_update(self, chance: Random, keeps: bool, fails: bool) -> None:
        """What a run consists of."""
        self.work(chance, keeps, 1)
        self.update(chance, fails)

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

        if member.state != "ready" or self.model.epoch.open or member.version != self.model.announced:
            self.refused(fails, act, "NotReady", "SyncActive", "StaleVersion")
        elif self.model.announced in self.model.abandoned:
            self.refused(fails, act, "SyncStalled")
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

    # --- mishaps ------------------------------------------------------------------------------------------------------------
    @rule(chance=CHANCE, fails=FAILS)
    def time_passes(self, chance: Random, fails: bool) -> None:
        """All but the leases whose holders send a heartbeat run out."""
        in_flight = [lease for lease, found in self.model.leases.items() if found.state == "in_flight"]
        named = {lease for lease in in_flight if chance.random() < 0.5}
        self.ledger.expire(self.now)
        self.now += TTL
        for name in ("r0", "r1"):
            own = [lease for lease in named if self.model.leases[lease].member == name]
            if self.speaking(name) is None:
                named -= set(own)
            else:
                assert self.ledger.heartbeat(self.envelope(name), 0, own, self.now).lost == []
        self.now += 1.0
        gone = [] if self.model.epoch.open else [lease for lease in in_flight if lease not in named]
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

    # --- epochs and versions ------------------------------------------------------------------------------------------------
    @rule(chance=CHANCE, fails=FAILS)
    def update(self, chance: Random, fails: bool) -> None:
        """A whole update, as learner and coordinator do it; it takes over what others have begun."""
        if self.model.head != len(self.model.versions) - 1:
            self.publish(chance, fails)
        if self.model.rule is not SealRule.SCORED:
            self.score_some(1000, False)
            self.publish(chance, fails)
        if not self.model.epoch.open:
            self.begin("a", False, fails)
        if self.model.epoch.state == "open":
            self.seal(True, set(), fails)
        if self.model.epoch.target < 0:
            self.publish(chance, fails)
        self.finish(fails)

    @rule(owner=OWNERS, stale=st.booleans(), fails=FAILS)
    def begin(self, owner: str, stale: bool, fails: bool) -> None:
        expected = self.model.epoch.number - stale
        again = self.model.epoch.open and stale and self.model.epoch.owner == owner
        if stale and not again:
            self.refused(fails, lambda: self.ledger.begin(owner, expected, self.now), "EpochTaken")
            return
        view = self.call(fails, lambda: self.ledger.begin(owner, expected, self.now))
        if not again:
            self.model.begin(owner)
        assert (view.epoch, view.owner) == (self.model.epoch.number, owner)

    @precondition(lambda self: self.model.epoch.state == "open")
    @rule(fails=FAILS)
    def roll_back(self, fails: bool) -> None:
        self.call(fails, lambda: self.ledger.roll_back(self.model.epoch.number, self.now))
        self.model.epoch.state = "rolled_back"

    @precondition(lambda self: self.model.epoch.state == "open")
    @rule(properly=st.booleans(), fenced=st.sets(NAMES), fails=FAILS)
    def seal(self, properly: bool, fenced: set[str], fails: bool) -> None:
        if properly:
            self.flush([name for name in self.model.epoch.members if name not in fenced])
        staying = [name for name in self.model.epoch.members if name not in fenced]
        version = self.model.announced
        manifests = [
            manifest(
                self.envelope(name),
                version,
                [
                    trajectory(self.leases[lease], versions, finished=False, tokens=TOKENS)
                    for lease, versions in self.held.items()
                    if self.model.leases[lease].member == name and not self.tampered(lease)
                ],
            )
            for name in staying
        ]
        number, owner = self.model.epoch.number, self.model.epoch.owner

        def act() -> object:
            return self.ledger.seal(number, owner, version, staying, manifests, fenced, self.now)

        entries = [(entry.lease_id, entry.index) for told in manifests for entry in told.entries]
        if self.model.rule.flushes and self.model.gaps(entries):
            assert not properly
            self.refused(fails, act, "ManifestIncomplete")
            return
        self.call(fails, act)
        for name in fenced & set(self.model.epoch.members):
            self.model.fence(name)
        self.model.seal()

    def tampered(self, lease: int) -> bool:
        return any(one.lease_id == lease and not right for one, right in self.sent)

    def flush(self, staying: list[str]) -> None:
        """What an honest Flush and Score do."""
        for lease, versions in self.held.items():
            found = self.model.leases[lease]
            if found.member in staying and found.state == "in_flight" and not self.tampered(lease):
                self.upload(lease, trajectory(self.leases[lease], versions, finished=False, tokens=TOKENS), True, False)
        if self.model.rule is SealRule.SCORED:
            self.score_some(1000, False)

    @rule(chance=CHANCE, fails=FAILS)
    def publish(self, chance: Random, fails: bool) -> None:
        trainable = [number for number in range(len(self.model.groups)) if self.model.trainable(number)]
        skipped = {chance.choice([*trainable, -1])}
        version = len(self.model.versions)
        restored = self.model.head != version - 1
        trained = [] if restored else [number for number in trainable if number not in skipped]
        made = record(
            version, parent=self.model.head, lineage=self.model.lineage, reason="restore" if restored else "step"
        )

        def act(groups: list[int] = trained) -> None:
            self.ledger.publish(made, None, groups, [], b"", self.now)

        epoch = self.model.epoch
        if self.model.rule is SealRule.SCORED and not restored and (epoch.state != "sealed" or epoch.target >= 0):
            self.refused(fails, act, "NotSealed", "AlreadyStepped")
            return
        for number in range(len(self.model.groups)):
            if not self.model.trainable(number):
                self.refused(False, lambda wrong=number: act([wrong]), "GroupNotReady", "NotScored")
        self.call(fails, act)
        self.model.publish(trained)
        act()

    @rule(fails=FAILS)
    def finish(self, fails: bool) -> None:
        epoch = self.model.epoch
        loaded = list(epoch.members)

        def act() -> object:
            return self.ledger.finish(epoch.number, epoch.owner, loaded, [], {"load": 1.0}, self.now)

        if epoch.state == "sealed" and epoch.target >= 0:
            self.call(fails, act)
            self.model.finish()
        elif epoch.open:
            self.refused(fails, act, "NotSealed", "NotStepped")

    @rule(fails=FAILS)
    def checkpoint(self, fails: bool) -> None:
        self.call(fails, lambda: self.ledger.commit_checkpoint(self.model.head, "checkpoints", self.now))
        self.model.checkpoints.add(self.model.head)

    @precondition(lambda self: self.model.checkpoints)
    @rule(chance=CHANCE, fails=FAILS)
    def restore(self, chance: Random, fails: bool) -> None:
        version = chance.choice(sorted(self.model.checkpoints))
        before = self.model.undone
        restored = self.call(fails, lambda: self.ledger.restore(version, self.now))
        self.model.restore(version)
        assert restored.undone == self.model.undone - before
        assert restored.republish is (version != len(self.model.versions) - 1)
        assert (restored.next_version, restored.lineage) == (len(self.model.versions), self.model.lineage)
        for group in self.ledger.load_groups(ready.group_id for ready in self.ledger.ready_groups()):
            assert all(one.trajectory is not None for one in group)
            assert all(part.behavior_logprobs is not None for one in group for part in one.segments)

    @rule(every=st.integers(0, 2), fails=FAILS)
    def prune(self, every: int, fails: bool) -> None:
        self.call(fails, lambda: self.ledger.prune(self.now, sample_every=every))
