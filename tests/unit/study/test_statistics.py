"""Means, paired differences and their intervals against closed forms; the table and the picture are made from any of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.study.builders import result

from asyncppo.study.picture import draw
from asyncppo.study.results import Errors, late_reward
from asyncppo.study.statistics import T_975, deviation, interval, rows
from asyncppo.study.words import difference, legend, table

finite = st.floats(-10, 10)


def t_density(x: float, freedom: int) -> float:
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    return scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 30])
def test_the_quantiles_hold_95_percent(freedom: int) -> None:
    high, steps = T_975[freedom - 1], 4000
    width = high / steps
    inside = sum(t_density((i + 0.5) * width, freedom) for i in range(steps)) * width * 2
    assert inside == pytest.approx(0.95, abs=2e-4)


def test_an_interval_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, deviation([1.0, 2.0, 3.0])) == (2.0, 1.0)
    assert found.high - found.mean == pytest.approx(4.303 / math.sqrt(3))
    assert found.excludes_zero is False
    assert interval([1.0]).low == -math.inf
    assert interval([5.0, 5.1, 4.9]).excludes_zero


@given(st.lists(finite, min_size=2, max_size=12), finite)
def test_a_shift_of_all_values_shifts_the_interval(values: list[float], by: float) -> None:
    one, other = interval(values), interval([value + by for value in values])
    assert other.mean == pytest.approx(one.mean + by, abs=1e-9)
    assert other.high - other.low == pytest.approx(one.high - one.low, abs=1e-9)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=8))
def test_differences_are_of_pairs(pairs: list[tuple[float, float]]) -> None:
    results = [result("Interruption", seed, one) for seed, (one, _) in enumerate(pairs)]
    results += [result("EWMA", seed, other) for seed, (_, other) in reversed(list(enumerate(pairs)))]
    base, ewma = rows(results, ["Interruption", "EWMA"], [None])
    assert base.difference is None
    assert ewma.difference is not None
    expected = interval([other - one for one, other in pairs])
    assert (ewma.difference.mean, ewma.difference.low) == (expected.mean, expected.low)


def test_seeds_without_a_partner_do_not_count() -> None:
    results = [result("Interruption", 0, 0.5), result("EWMA", 0, 0.7), result("EWMA", 1, 9.0)]
    _, ewma = rows(results, ["Interruption", "EWMA"], [None])
    assert ewma.difference is not None
    assert (ewma.difference.mean, ewma.difference.count) == (pytest.approx(0.2), 1)


def test_the_table_names_what_it_does_not_know() -> None:
    errors = Errors(false_mask=0.25, missed_clip=0.125)
    results = [result("Interruption", s, 0.5 + s, v) for v in (1, 2) for s in (0, 1)]
    results += [result("EWMA", s, 0.9 + s, v, errors=errors) for v in (1, 2) for s in (0, 1)]
    found = rows(results, ["Interruption", "EWMA"], [1, 2])
    text = table(found, "staleness.maxVersions")
    assert "staleness.maxVersions = 2" in text
    assert "25.0%" in text
    assert "12.5%" in text
    assert difference(found[1].difference) == "+0.400 [+0.400, +0.400]"
    assert "EWMA at 1" in legend(found, "Interruption")
    assert difference(rows(results[:1] + results[4:5], ["Interruption", "EWMA"], [1])[1].difference).endswith(
        "(one seed)"
    )
    assert draw("tiny", found, "staleness.maxVersions").startswith(b"\x89PNG")
    assert draw("tiny", rows(results[:2], ["Interruption", "EWMA"], [1]), "").startswith(b"\x89PNG")


def test_the_late_reward_is_of_the_last_fifth() -> None:
    assert late_reward([0.0] * 8 + [1.0, 3.0]) == 2.0
    assert late_reward([7.0]) == 7.0
    assert late_reward([]) == 0.0
