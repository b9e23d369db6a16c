"""The scoring queue: assignment, leases, back-pressure, and nothing lost in any order of events."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncppo_runtime.old_logprobs.errors import QueueError
from asyncppo_runtime.old_logprobs.queue import QueuedSegment, QueueLimits, ScoringQueue

LIMITS = QueueLimits(lease_seconds=10.0, batch_tokens=100, backlog_tokens=500, backlog_lag=2)


def queue_of(*segments: tuple[str, int, int]) -> ScoringQueue[str]:
    queue: ScoringQueue[str] = ScoringQueue(LIMITS)
    for key, version, tokens in segments:
        assert queue.add(QueuedSegment(key, version, tokens, f"digest-{key}"))
    return queue


def keys(assignment):
    return [segment.key for segment in assignment.segments]


def test_the_oldest_version_first_within_the_token_budget():
    queue = queue_of(("a", 4, 60), ("b", 3, 60), ("c", 3, 30), ("d", 3, 30))
    queue.register("w", 1)
    first = queue.assign("w", 1, -1, now=0.0)
    assert (first.version, keys(first), first.deadline) == (3, ["b", "c"], 10.0)


def test_a_segment_larger_than_the_budget_is_assigned_alone():
    queue = queue_of(("big", 1, 1000), ("small", 1, 1))
    queue.register("w", 1)
    assert keys(queue.assign("w", 1, -1, 0.0)) == ["big"]


def test_a_worker_stays_on_its_loaded_version():
    queue = queue_of(("a", 3, 10), ("b", 4, 10))
    queue.register("w", 1)
    assert queue.assign("w", 1, loaded_version=4, now=0.0).version == 4
    queue.complete("b", "digest-b")
    assert queue.assign("w", 1, loaded_version=4, now=0.0).version == 3


def test_workers_spread_over_versions():
    queue = queue_of(*[(f"{v}{i}", v, 60) for v in (1, 2) for i in range(3)])
    for worker in ("w1", "w2", "w3"):
        queue.register(worker, 1)
    assert [queue.assign(w, 1, -1, 0.0).version for w in ("w1", "w2", "w3")] == [1, 2, 1]


def test_nothing_to_do():
    queue = queue_of()
    queue.register("w", 1)
    assert queue.assign("w", 1, 5, 0.0).segments == ()


def test_overdue_work_goes_back_to_the_front():
    queue = queue_of(("a", 1, 60), ("b", 1, 60))
    queue.register("w1", 1)
    queue.register("w2", 1)
    assert keys(queue.assign("w1", 1, -1, 0.0)) == ["a"]
    assert keys(queue.assign("w2", 1, -1, 9.0)) == ["b"]
    assert queue.expire(10.0) == ["a"]
    queue.lose("w2")
    queue.register("w3", 1)
    assert keys(queue.assign("w3", 1, -1, 11.0)) == ["b"]


def test_a_returning_worker_gets_its_unfinished_work_again():
    queue = queue_of(("a", 1, 60), ("b", 1, 60))
    queue.register("w", 1)
    queue.assign("w", 1, -1, 0.0)
    assert keys(queue.assign("w", 1, 1, 1.0)) == ["a"]


def test_work_given_back_goes_to_another_and_a_replaced_process_gives_nothing_back():
    queue = queue_of(("a", 1, 60), ("b", 1, 60))
    queue.register("w1", 1)
    queue.register("w2", 1)
    assert keys(queue.assign("w1", 1, -1, 0.0)) == ["a"]
    assert queue.busy(9.0)
    queue.give_back("w1", 1)
    assert not queue.busy(0.0)
    assert keys(queue.assign("w2", 1, -1, 0.0)) == ["a"]
    queue.register("w2", 2)
    assert keys(queue.assign("w2", 2, -1, 0.0)) == ["a"]
    with pytest.raises(QueueError, match="register again"):
        queue.give_back("w2", 1)
    assert keys(queue.assign("w1", 1, -1, 0.0)) == ["b"], "the successor keeps its work"
    assert queue.holds("a")
    assert {segment.key for segment in queue.segments()} == {"a", "b"}


def test_a_new_incarnation_replaces_the_old_one():
    queue = queue_of(("a", 1, 60))
    queue.register("w", 1)
    queue.assign("w", 1, -1, 0.0)
    queue.register("w", 2)
    with pytest.raises(QueueError, match="register again"):
        queue.assign("w", 1, -1, 0.0)
    with pytest.raises(QueueError, match="replaced"):
        queue.register("w", 1)
    assert keys(queue.assign("w", 2, -1, 0.0)) == ["a"]


def test_completion_is_idempotent_and_checks_the_content():
    queue = queue_of(("a", 1, 10))
    with pytest.raises(QueueError, match="other content"):
        queue.complete("a", "forged")
    assert not queue.drained(1)
    assert queue.complete("a", "digest-a")
    assert not queue.complete("a", "digest-a")
    assert queue.drained(1)


def test_adding_is_idempotent_and_refuses_contradictions():
    queue = queue_of(("a", 1, 10))
    assert not queue.add(QueuedSegment("a", 1, 10, "digest-a"))
    with pytest.raises(QueueError, match="contradicts itself"):
        queue.add(QueuedSegment("a", 2, 10, "digest-a"))


def test_back_pressure():
    queue = queue_of(("a", 1, 10))
    assert queue.holds_back_publication() == ""
    queue.announce(3)
    assert queue.holds_back_publication() == ""
    queue.announce(4)
    assert "version 1 is not scored yet at version 4" in queue.holds_back_publication()
    queue.complete("a", "digest-a")
    assert queue.holds_back_publication() == ""
    queue.add(QueuedSegment("b", 4, 501, "b"))
    assert "501 tokens wait" in queue.holds_back_publication()
    backlog = queue.backlog()
    assert (backlog.segments, backlog.tokens, backlog.versions, backlog.oldest_version, backlog.lag) == (
        1,
        501,
        (4,),
        4,
        0,
    )


class QueueMachine(RuleBasedStateMachine):
    """Segments arrive, workers come, work, die and return in any order: nothing is lost or given twice."""

    def __init__(self):
        super().__init__()
        self.queue: ScoringQueue[int] = ScoringQueue(LIMITS)
        self.now, self.next, self.incarnations = 0.0, 0, {}
        self.todo: dict[int, int] = {}
        self.given: dict[str, dict[int, float]] = {}

    @rule(version=st.integers(0, 3), tokens=st.integers(1, 150))
    def arrive(self, version, tokens):
        self.queue.add(QueuedSegment(self.next, version, tokens, str(self.next)))
        self.todo[self.next] = version
        self.next += 1

    @rule(worker=st.sampled_from("xyz"))
    def register(self, worker):
        self.incarnations[worker] = self.incarnations.get(worker, 0) + 1
        self.queue.register(worker, self.incarnations[worker])
        self.given[worker] = {}

    @precondition(lambda self: self.given)
    @rule(data=st.data(), loaded=st.integers(-1, 3))
    def assign(self, data, loaded):
        worker = data.draw(st.sampled_from(sorted(self.given)))
        assignment = self.queue.assign(worker, self.incarnations[worker], loaded, self.now)
        elsewhere = {
            k for w, leases in self.given.items() if w != worker for k, until in leases.items() if until > self.now
        }
        found = {segment.key for segment in assignment.segments}
        assert not found & elsewhere  # nobody else has it on lease
        assert found <= set(self.todo)
        assert {self.todo[k] for k in found} <= {assignment.version}
        if not found:
            assert set(self.todo) <= elsewhere  # idle only when everything is in somebody's hands
        self.given[worker] = dict.fromkeys(found, assignment.deadline)

    @precondition(lambda self: self.todo)
    @rule(data=st.data())
    def complete(self, data):
        key = data.draw(st.sampled_from(sorted(self.todo)))
        assert self.queue.complete(key, str(key))
        del self.todo[key]
        for leases in self.given.values():
            leases.pop(key, None)

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def die(self, data):
        worker = data.draw(st.sampled_from(sorted(self.given)))
        self.queue.lose(worker)
        del self.given[worker]

    @rule(seconds=st.floats(0.1, 12.0))
    def time_passes(self, seconds):
        self.now += seconds

    @invariant()
    def the_books_balance(self):
        backlog = self.queue.backlog()
        assert backlog.segments == len(self.todo)
        assert set(backlog.versions) == set(self.todo.values())
        for version in range(4):
            assert self.queue.drained(version) == (version not in self.todo.values())


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40)
