"""Sampling numbers are a function of seed and position alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asyncppo_runtime.rollout.randomness import continued_seed, uniform

SEEDS = st.integers(0, 2**63 - 1)
POSITIONS = st.integers(0, 10**6)


def numbers(seeds: list[int], positions: list[int]) -> list[float]:
    return list(uniform(np.array(seeds, np.uint64), np.array(positions, np.uint64)))


@given(SEEDS, POSITIONS, POSITIONS)
def test_a_continued_stream_goes_on_where_it_was_cut(seed: int, cut: int, further: int) -> None:
    assert numbers([continued_seed(seed, cut)], [further]) == numbers([seed], [cut + further])


@given(SEEDS, st.integers(1, 500))
def test_no_two_requests_of_an_episode_share_a_seed(seed: int, count: int) -> None:
    assert len({continued_seed(seed, position) for position in range(count)}) == count


@given(st.lists(st.tuples(SEEDS, POSITIONS), min_size=1, max_size=20))
def test_a_number_does_not_depend_on_its_neighbours_in_the_batch(pairs: list[tuple[int, int]]) -> None:
    together = numbers([seed for seed, _ in pairs], [position for _, position in pairs])
    alone = [numbers([seed], [position])[0] for seed, position in pairs]
    assert together == alone
    assert all(0.0 <= number < 1.0 for number in together)


def test_streams_are_uniform_and_do_not_follow_each_other() -> None:
    positions = np.arange(20_000, dtype=np.uint64)
    one = uniform(np.full(20_000, 1, np.uint64), positions)
    next_seed = uniform(np.full(20_000, 2, np.uint64), positions)
    counts = np.histogram(one, bins=20, range=(0, 1))[0]
    assert abs(counts - 1000).max() < 150  # five standard deviations of a bin
    for other in (next_seed, np.roll(one, 1)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.035  # five standard deviations
