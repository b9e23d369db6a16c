"""The ring of versions: never evicts what is needed, survives restarts on disk, notices damage."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.algorithm.builders import tiny_model
from tests.unit.old_logprobs.builders import Versions

from asyncppo_runtime.old_logprobs.errors import HeldWeightsError, RingFullError, VersionUnavailableError
from asyncppo_runtime.old_logprobs.ring import DiskMedium, MemoryMedium, VersionRing
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore

VERSIONS = Versions.of([1, 2, 3, 4, 5])


@pytest.fixture(params=["memory", "disk"])
def medium(request, tmp_path):
    return MemoryMedium() if request.param == "memory" else DiskMedium(WeightStore(tmp_path / "versions"))


def kept(medium, *versions, retention=3):
    ring = VersionRing(medium, retention)
    for version in versions:
        ring.keep(version, VERSIONS.tensors(version), VERSIONS.hash(version))
    return ring


def test_a_kept_version_is_lent_bit_for_bit(medium):
    ring = kept(medium, 1, 2)
    model = tiny_model(9)
    before = tensors_hash(policy_tensors(model))
    with ring.hold(1, model) as held:
        assert (held.version, held.train_hash) == (1, VERSIONS.hash(1))
        assert tensors_hash(policy_tensors(model)) == VERSIONS.hash(1)
        ring.retire(1)
        assert ring.versions() == [1, 2], "what is lent stays"
    assert ring.versions() == [2]
    assert tensors_hash(policy_tensors(model)) == before


def test_later_training_in_place_does_not_reach_the_copies(medium):
    model = tiny_model(3)
    ring = VersionRing(medium, 3)
    train_hash = tensors_hash(policy_tensors(model))
    ring.keep(7, policy_tensors(model), train_hash)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    with ring.hold(7, model) as held:
        assert held.train_hash == train_hash


def test_a_retired_version_goes_and_says_so(medium):
    ring = kept(medium, 1, 2, 3)
    ring.retire(1)
    assert ring.versions() == medium.versions() == [2, 3]
    with (
        pytest.raises(VersionUnavailableError, match="version 1 is not kept any more") as error,
        ring.hold(1, tiny_model()),
    ):
        pass
    assert error.value.version == 1


def test_a_pinned_version_stays_until_it_is_unpinned(medium):
    ring = kept(medium, 1, 2)
    ring.pin(1, 3)
    ring.retire(1)
    assert ring.versions() == [1, 2]
    ring.unpin(1, 2)
    assert ring.versions() == [1, 2]
    ring.unpin(1)
    assert ring.versions() == [2]
    with pytest.raises(ValueError, match="pinned 0 times"):
        ring.unpin(2)


def test_the_newest_is_never_evicted(medium):
    ring = kept(medium, 1, 2)
    ring.retire(2)
    ring.retire(1)
    assert ring.versions() == [2]
    ring.keep(3, VERSIONS.tensors(3), VERSIONS.hash(3))
    assert ring.versions() == [3]


def test_a_full_ring_refuses_to_orphan_tokens(medium):
    ring = kept(medium, 1, 2, 3, retention=2)  # two, and one more while a publication is under way
    with pytest.raises(RingFullError, match="version 1 first"):
        ring.keep(4, VERSIONS.tensors(4), VERSIONS.hash(4))
    assert ring.versions() == medium.versions() == [1, 2, 3]
    ring.retire(1)
    ring.keep(4, VERSIONS.tensors(4), VERSIONS.hash(4))
    assert ring.versions() == [2, 3, 4]


def test_keeping_again_is_idempotent_but_never_other_weights(medium):
    ring = kept(medium, 1)
    ring.keep(1, VERSIONS.tensors(1), VERSIONS.hash(1))
    with pytest.raises(HeldWeightsError, match="never reused"):
        ring.keep(1, VERSIONS.tensors(2), VERSIONS.hash(2))
    with ring.hold(1, tiny_model()) as held:
        assert held.train_hash == VERSIONS.hash(1)


def test_weights_that_are_not_the_versions_are_noticed(medium):
    ring = VersionRing(medium, 3)
    ring.keep(1, VERSIONS.tensors(2), VERSIONS.hash(1))
    model = tiny_model()
    before = tensors_hash(policy_tensors(model))
    with pytest.raises(HeldWeightsError, match="the version is"), ring.hold(1, model):
        pass
    ring.keep(2, VERSIONS.tensors(2), VERSIONS.hash(2))
    ring.retire(1)
    assert ring.versions() == [2], "it is no longer pinned"
    assert tensors_hash(policy_tensors(model)) == before


def test_a_damaged_file_is_unavailable(tmp_path):
    store = WeightStore(tmp_path)
    ring = kept(DiskMedium(store), 1)
    store.path(1).write_bytes(store.path(1).read_bytes()[:-50])
    with pytest.raises(VersionUnavailableError, match="cannot be loaded"), ring.hold(1, tiny_model()):
        pass


def test_a_restart_adopts_what_the_disk_still_has(tmp_path):
    kept(DiskMedium(WeightStore(tmp_path)), 1, 2)
    ring = VersionRing(DiskMedium(WeightStore(tmp_path)), 3)
    assert ring.adopt({v: VERSIONS.hash(v) for v in (1, 2, 3)}) == [3]
    with ring.hold(2, tiny_model()) as held:
        assert held.train_hash == VERSIONS.hash(2)
    lost = VersionRing(MemoryMedium(), 3)
    assert lost.adopt({1: VERSIONS.hash(1)}) == [1]


def test_a_restart_takes_memorys_versions_from_beside_in_the_very_same_bytes(tmp_path):
    beside = WeightStore(tmp_path)
    beside.publish(1, VERSIONS.tensors(1))
    beside.publish(2, {name: tensor.float() for name, tensor in VERSIONS.tensors(2).items()})  # a cast of the version
    beside.publish(3, VERSIONS.tensors(3))
    beside.path(3).write_bytes(beside.path(3).read_bytes()[:-50])
    ring = VersionRing(MemoryMedium(), 3)
    assert ring.adopt({v: VERSIONS.hash(v) for v in (1, 2, 3, 4)}, DiskMedium(beside, writes=False)) == [2, 3, 4]
    beside.remove(1)
    with ring.hold(1, tiny_model()) as held:
        assert held.train_hash == VERSIONS.hash(1)


def test_what_is_taken_back_is_bounded_by_need_only(medium):
    ring = VersionRing(medium, 1)
    for version in (1, 2, 3):
        ring.take_back(version, VERSIONS.tensors(version))
    with pytest.raises(RingFullError):
        ring.keep(4, VERSIONS.tensors(4), VERSIONS.hash(4))
    ring.retire(1)
    ring.retire(2)
    ring.keep(4, VERSIONS.tensors(4), VERSIONS.hash(4))
    assert ring.versions() == [3, 4]


def test_a_store_that_somebody_else_writes_is_only_read(tmp_path):
    store = WeightStore(tmp_path)
    store.publish(1, VERSIONS.tensors(1))
    ring = kept(DiskMedium(store, writes=False), 1, 2)
    ring.retire(1)
    assert store.versions() == [1]


class RingMachine(RuleBasedStateMachine):
    """Publications, pins and retirements in any order: a pinned or unretired version is always there."""

    def __init__(self):
        super().__init__()
        self.ring = VersionRing(MemoryMedium(), 3)
        self.next, self.pinned, self.alive = 0, {}, set()

    @rule()
    def publish(self):
        tensors = {"w": torch.full((2,), float(self.next))}
        try:
            self.ring.keep(self.next, tensors, tensors_hash(tensors))
        except RingFullError:
            assert len(self.ring.versions()) > 3
            return
        self.alive.add(self.next)
        self.next += 1

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def pin(self, data):
        version = data.draw(st.sampled_from(sorted(self.alive)))
        self.ring.pin(version)
        self.pinned[version] = self.pinned.get(version, 0) + 1

    @precondition(lambda self: any(self.pinned.values()))
    @rule(data=st.data())
    def unpin(self, data):
        version = data.draw(st.sampled_from(sorted(v for v, n in self.pinned.items() if n)))
        self.ring.unpin(version)
        self.pinned[version] -= 1

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def retire(self, data):
        version = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.discard(version)
        self.ring.retire(version)

    @invariant()
    def what_is_needed_is_there_and_nothing_else(self):
        needed = self.alive | {v for v, n in self.pinned.items() if n}
        newest = {self.next - 1} if self.next else set()
        assert set(self.ring.versions()) == needed | newest == set(self.ring.medium.versions())
        for version in needed:
            assert self.ring.medium.load(version)["w"][0] == version
        assert self.ring.medium.bytes_held == 8 * len(self.ring.versions())


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=40, stateful_step_count=30)
