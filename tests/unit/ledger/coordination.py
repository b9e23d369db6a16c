"""The machine's other half: two coordinators and the learner move versions forward, and sometimes back. Owns those calls."""

from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.unit.ledger.builders import manifest, record, trajectory
from tests.unit.ledger.machine import CHANCE, FAILS, NAMES, TOKENS, RolloutMachine

from asyncppo_runtime.ledger.records import SealRule

OWNERS = st.sampled_from(["a", "b"])


class LedgerMachine(RolloutMachine):
    """Two rollouts, two coordinators, one learner."""

    @rule(chance=CHANCE, keeps=st.booleans(), fails=FAILS)
    def work_and_update(self, chance: Random, keeps: bool, fails: bool) -> None:
        """What a run consists of."""
        self.work(chance, keeps, 1)
        self.update(chance, fails)

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
