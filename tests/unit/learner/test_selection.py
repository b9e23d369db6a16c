"""The staleness bound holds whatever the order of completion: a discrete-event simulation over random schedules."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncppo.api.correction import StalenessAction
from asyncppo_runtime.learner.selection import GroupState, live_groups_allowed, select_batch


@settings(max_examples=150)
@given(
    batch_groups=st.integers(1, 5),
    max_versions=st.integers(0, 4),
    action=st.sampled_from(StalenessAction),
    seed=st.integers(0, 2**32 - 1),
    tail=st.floats(0.3, 0.95),
)
def test_no_step_trains_a_token_older_than_the_bound(
    batch_groups: int, max_versions: int, action: StalenessAction, seed: int, tail: float
) -> None:
    """Groups take geometrically long, heavy-tailed; the learner steps whenever selection lets it."""
    updates = 25
    rng = random.Random(seed)
    version, opened, discarded, trained = 0, 0, 0, 0
    live: dict[int, int] = {}
    left: dict[int, int] = {}
    for _ in range(20_000):
        if version == updates:
            break
        allowed = live_groups_allowed(batch_groups, max_versions, (updates - version) * batch_groups)
        while len(live) < allowed:
            live[opened] = version
            left[opened] = 1
            while rng.random() < tail and left[opened] < 60:
                left[opened] += 1
            opened += 1
        for group in left:
            left[group] = max(0, left[group] - 1)
        states = [GroupState(g, left[g] == 0, v) for g, v in live.items()]
        selection = select_batch(states, version, batch_groups, max_versions, action)
        for group in selection.stale:
            discarded += 1
            del live[group], left[group]
        if not selection.batch:
            assert selection.missing or selection.stragglers
            continue
        assert len(selection.batch) >= batch_groups
        for group in selection.batch:
            assert left[group] == 0
            assert version - live[group] <= max_versions
            del live[group], left[group]
            trained += 1
        version += 1
    assert version == updates, "training came to a halt"
    assert action is StalenessAction.DISCARD or discarded == 0, "Wait never discards"


def test_capacity_alone_breaks_the_bound_for_a_straggler() -> None:
    """The aggregate rule of other systems: admission by capacity, batches of whatever is complete. One slow group passes the bound."""
    batch_groups, max_versions = 2, 1
    live = {0: 0}
    opened, worst = 1, 0
    for version in range(10):
        while len(live) < live_groups_allowed(batch_groups, max_versions, 1_000):
            live[opened] = version
            opened += 1
        done = [group for group in live if group != 0][:batch_groups]
        if version == 6:
            done = [0, *done[:1]]
        for group in done:
            worst = max(worst, version - live.pop(group))
    assert worst > max_versions
    states = [GroupState(0, False, 0), GroupState(1, True, 1), GroupState(2, True, 1)]
    held = select_batch(states, 1, batch_groups, max_versions, StalenessAction.WAIT)
    assert held.batch == ()
    assert held.stragglers == (0,)
    dropped = select_batch(states, 1, batch_groups, max_versions, StalenessAction.DISCARD)
    assert dropped.stale == (0,)
    assert dropped.batch == (1, 2)


def test_oldest_versions_go_first() -> None:
    states = [GroupState(5, True, 3), GroupState(7, True, 2), GroupState(1, True, 3)]
    assert select_batch(states, 3, 2, 2, StalenessAction.WAIT).batch == (7, 1)


def test_the_last_batches_open_no_more_groups_than_they_need() -> None:
    assert live_groups_allowed(8, 2, 100) == 24
    assert live_groups_allowed(8, 2, 16) == 16
    assert live_groups_allowed(8, 2, 0) == 0


def test_a_sampler_that_is_behind_has_less_room() -> None:
    assert live_groups_allowed(8, 2, 100, lag=1) == 16
    assert live_groups_allowed(8, 0, 100, lag=1) == 0


def test_zero_staleness_is_synchronous() -> None:
    """With bound 0 a whole batch is sampled, then trained: never one group more."""
    assert live_groups_allowed(8, 0, 1_000) == 8
    states = [GroupState(g, g != 3, 4) for g in range(4)]
    assert select_batch(states, 4, 4, 0, StalenessAction.WAIT).missing == 1
    complete = [GroupState(g, True, 4) for g in range(4)]
    assert select_batch(complete, 4, 4, 0, StalenessAction.WAIT).batch == (0, 1, 2, 3)
