"""The slot table: admission, prefix reuse, eviction, and rounds that feed every pending token exactly once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.rollout.builders import request

from asyncppo_runtime.rollout.engines.torch_slots import FORWARD_TOKENS, PREFILL_CHUNK, SlotTable


def feed(table: SlotTable) -> list[tuple[int, int]]:
    """One round without a model: (slot, tokens fed) of each row, all marked as cached."""
    fed = []
    for group in table.plan():
        table.fed(group)
        fed += list(zip(group.slots.tolist(), group.counts.tolist(), strict=True))
    return fed


def test_a_session_keeps_the_kv_of_the_longest_common_prefix() -> None:
    table = SlotTable(2, 32)
    slot = table.admit(request([1, 2, 3, 4, 5], session="a"))
    assert slot is not None
    feed(table)
    table.stop(slot)
    assert table.admit(request([1, 2, 3, 9, 5, 6], session="a")) == slot
    assert table.cached[slot] == 3
    table.stop(slot)
    feed(table)
    assert table.admit(request([1, 2, 3], session="a")) == slot
    assert table.cached[slot] == 2, "at least one token is fed anew, else there are no logits to sample from"


def test_another_session_never_inherits_kv() -> None:
    table = SlotTable(1, 32)
    slot = table.admit(request([1, 2, 3], session="a"))
    assert slot is not None
    feed(table)
    table.stop(slot)
    assert table.admit(request([1, 2, 3], session="b")) == slot
    assert table.cached[slot] == 0
    table.stop(slot)
    table.admit(request([1, 2, 3], session="a"))
    assert table.cached[slot] == 0


def test_the_session_idle_for_longest_is_evicted_and_active_ones_never() -> None:
    table = SlotTable(2, 32)
    first, second = table.admit(request([1], session="a")), table.admit(request([1], session="b"))
    assert first is not None
    assert second is not None
    assert table.admit(request([1], session="c")) is None
    table.stop(second)
    table.stop(first)
    assert table.admit(request([1], session="c")) == first
    assert table.admit(request([1], session="b")) == second


def test_dropped_kv_is_fed_again() -> None:
    table = SlotTable(1, 32)
    table.admit(request([1, 2, 3, 4]))
    assert feed(table) == [(0, 4)]
    table.drop_kv()
    assert feed(table) == [(0, 4)]


def test_stop_tokens_and_limits_end_requests() -> None:
    table = SlotTable(3, 10)
    for session, stops in (("a", [7]), ("b", [5, 6, 7]), ("c", [])):
        table.admit(request([1, 2], session=session, max_tokens=2, stop_token_ids=stops))
    slots = np.arange(3)
    ended = table.sampled(slots, np.array([6, 6, 6]), np.zeros(3))
    assert [(end.slot, end.stopped) for end in ended] == [(1, True)]
    rest = np.array([0, 2])
    ended = table.sampled(rest, np.array([7, 7]), np.array([-1.0, -2.0]))
    assert [(end.slot, end.stopped) for end in ended] == [(0, True), (2, False)]
    assert table.output(2) == ([6, 7], [0.0, -2.0])
    assert not table.active.any()


def test_output_never_passes_the_context() -> None:
    table = SlotTable(1, 4)
    table.admit(request([1, 2, 3], max_tokens=100))
    assert [end.slot for end in table.sampled(np.array([0]), np.array([5]), np.zeros(1))] == [0]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40))
@settings(max_examples=50)
def test_a_round_feeds_every_row_once_in_bounded_forwards(lengths: list[int]) -> None:
    table = SlotTable(len(lengths), 701)
    for number, length in enumerate(lengths):
        table.admit(request([1] * length, session=str(number), max_tokens=1))
    seen: list[int] = []
    for group in table.plan():
        assert group.counts.max() == group.width
        assert group.width * group.slots.size <= max(FORWARD_TOKENS, group.width)
        assert (group.slots[:-1] < group.slots[1:]).all()
        for slot, count in zip(group.slots, group.counts, strict=True):
            assert count == min(lengths[slot], PREFILL_CHUNK)
        seen += group.slots.tolist()
    assert sorted(seen) == list(range(len(lengths)))


class Sessions(RuleBasedStateMachine):
    """Random requests, rounds, drops and forgets; a model of what is cached in plain lists says what must be fed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable(3, 24)
        self.running: dict[str, int] = {}
        self.cache: dict[int, list[int]] = {}  # slot → ids whose KV the cache really holds

    @rule(session=st.sampled_from("abcde"), ids=st.lists(st.integers(0, 2), min_size=1, max_size=20))
    def ask(self, session: str, ids: list[int]) -> None:
        if session in self.running:
            return
        slot = self.table.admit(request(ids, session=session))
        assert (slot is None) == (len(self.running) == 3)
        if slot is not None:
            assert slot not in self.running.values()
            self.running[session] = slot

    @rule()
    def round(self) -> None:
        for group in self.table.plan():
            before = self.table.cached[group.slots].tolist()
            self.table.fed(group)
            for slot, first, count in zip(group.slots.tolist(), before, group.counts.tolist(), strict=True):
                ids = self.table.ids[slot, first : first + count].tolist()
                self.cache[slot] = self.cache.get(slot, [])[:first] + ids

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.running)))
        self.table.stop(self.running.pop(session))

    @rule(session=st.sampled_from("abcde"))
    def forget(self, session: str) -> None:
        self.table.forget(session)

    @rule()
    def new_weights(self) -> None:
        self.table.drop_kv()
        self.cache.clear()

    @invariant()
    def what_is_called_cached_is_cached(self) -> None:
        for slot in range(3):
            count = int(self.table.cached[slot])
            assert self.cache.get(slot, [])[:count] == self.table.ids[slot, :count].tolist()
            assert count <= self.table.known[slot]

    @invariant()
    def active_is_what_runs(self) -> None:
        assert sorted(self.running.values()) == np.flatnonzero(self.table.active).tolist()


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=30)
