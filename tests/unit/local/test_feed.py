"""The rollouts' clocks: counters that start again with their program."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from asyncppo.local.feed import Clock, parse_clock, shares
from asyncppo.metrics import rollout


def test_a_clock_survives_restarts() -> None:
    clock = Clock()
    for reading in (1.0, 5.0, 0.5, 2.0, 2.0, 0.0):
        clock.read({"sampling": reading})
    assert clock.totals == {"sampling": 7.0}


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_clock_counts_the_end_of_every_life_it_can_tell_apart(lives: list[list[float]]) -> None:
    clock = Clock()
    readings = [value for life in lives for value in sorted(life)]
    for value in readings:
        clock.read({"sampling": value})
    drops = [before for before, after in pairwise(readings) if after < before]
    assert abs(clock.totals["sampling"] - (sum(drops) + readings[-1])) <= 1e-6 * (1 + sum(drops))


def test_the_catalogues_names_are_read() -> None:
    registry = CollectorRegistry()
    rollout.SAMPLING_SECONDS.counter(registry).inc(3.5)
    rollout.ENVIRONMENT_SECONDS.counter(registry).inc(1.25)
    rollout.PAUSED_SECONDS.counter(registry).inc(0.25)
    rollout.SAMPLED_TOKENS.counter(registry).inc(99)
    assert parse_clock(generate_latest(registry).decode()) == {"sampling": 3.5, "environment": 1.25, "paused": 0.25}


def test_shares_are_per_slot_and_the_rest_is_idle() -> None:
    spent = shares({"sampling": 40.0, "environment": 20.0, "paused": 1.0}, alive=10.0, concurrency=10)
    assert spent == {"sampling": 4.0, "environment": 2.0, "paused": 1.0, "idle": 3.0}
    assert shares({}, alive=10.0, concurrency=10) == {}
    assert shares({"sampling": 40.0}, alive=1.0, concurrency=10)["idle"] == 0.0
