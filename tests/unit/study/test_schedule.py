"""The virtual schedule: a function of the seed, within the bound, over all of it, and the same for every strategy."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.study.builders import job

from asyncppo_runtime.study.schedule import beginning, courses


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31 - 1), bound=st.integers(0, 5), updates=st.integers(1, 8))
def test_every_trajectory_begins_once_and_ends_in_time(seed: int, bound: int, updates: int) -> None:
    spec = job(updates=updates, bound=bound, seed=seed).spec
    begun = [course for version in range(updates) for course in beginning(spec, version)]
    wanted = [course for update in range(updates) for course in courses(spec, update)]
    key = lambda course: course.lease.lease_id  # noqa: E731
    assert sorted(begun, key=key) == sorted(wanted, key=key)
    assert len({key(course) for course in wanted}) == updates * 12
    for course in wanted:
        assert max(0, course.update - bound) <= course.start <= course.last <= course.update
        assert all(tokens >= 1 for tokens in course.allowances)
        assert course.allowance(course.last) is None


def test_strategies_share_it_and_seeds_do_not() -> None:
    one = courses(job(seed=3).spec, 3)
    assert one == courses(job(seed=3, strategy="EWMA").spec, 3)
    assert one != courses(job(seed=4).spec, 3)


def test_it_reaches_the_bound_and_interleaves() -> None:
    spec = job(updates=40, bound=3).spec
    made = [course for update in range(3, 40) for course in courses(spec, update)]
    assert {course.update - course.start for course in made} == {0, 1, 2, 3}
    assert {len(course.allowances) for course in made} == {0, 1, 2, 3}
