"""Who may take a Lease: by what this process has seen change, never by another machine's clock."""

from hypothesis import given
from hypothesis import strategies as st

from asyncppo_operator.lease import Seen, may_take, observe


def lease(holder: str, renewal: str) -> dict[str, object]:
    return {"spec": {"holderIdentity": holder, "renewTime": renewal}}


def test_a_lease_that_is_renewed_is_not_taken() -> None:
    seen = observe(Seen(), lease("a", "1"), 0.0)
    seen = observe(seen, lease("a", "2"), 14.0)
    assert not may_take(seen, "b", 15, 28.0)
    assert may_take(seen, "b", 15, 29.5)


def test_a_renewal_time_far_in_the_past_is_no_reason_to_take_it() -> None:
    seen = observe(Seen(), lease("a", "1970-01-01T00:00:00Z"), 100.0)
    assert not may_take(seen, "b", 15, 101.0)


def test_ones_own_and_a_free_lease_may_be_taken_at_once() -> None:
    assert may_take(observe(Seen(), lease("b", "1"), 0.0), "b", 15, 0.0)
    assert may_take(observe(Seen(), lease("", "1"), 0.0), "b", 15, 0.0)
    assert may_take(observe(Seen(), {}, 0.0), "b", 15, 0.0)


READS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.floats(0, 100)), min_size=1, max_size=8)


@given(READS)
def test_it_is_taken_only_after_a_whole_duration_without_change(reads: list[tuple[str, int, float]]) -> None:
    seen, now, changed = Seen(), 0.0, 0.0
    known: tuple[str, int] | None = None
    for holder, renewal, later in reads:
        now += later
        seen = observe(seen, lease(holder, str(renewal)), now)
        if (holder, renewal) != known:
            known, changed = (holder, renewal), now
        if holder == "a":
            assert may_take(seen, "b", 15, now) == (now - changed > 15)
