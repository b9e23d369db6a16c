"""Sentences made of figures: said when there is something to say, and then with what to do."""

import pytest

from asyncppo.report.measures import Failures, Learning, LedgerTotals
from asyncppo.report.remarks import ADVICE, discards, failing, hopeless, unlearnt
from asyncppo.report.wording import one_line


def test_discards_are_a_share_of_trajectories_with_the_commonest_reason() -> None:
    assert discards(LedgerTotals()) == "0%"
    assert discards(LedgerTotals(received=10, waiting=10)) == "0%"
    lost = LedgerTotals(received=40, trained=20, discarded={"stale": 5, "environment_error": 15})
    assert discards(lost) == "50.0% (environment_error)"
    assert discards(LedgerTotals(received=3, discarded={"b": 1, "a": 1, "empty": 1})) == "100% (a)"


def test_a_run_of_failures_is_told_by_its_commonest() -> None:
    assert failing(Failures(limit=64, last="KeyError: 1")) == "", "a good one came since"
    one = Failures(in_a_row=1, limit=64, reason="environment_timeout", count=1)
    assert failing(one) == "the last trajectory was discarded as environment_timeout"
    all_of_them = Failures(in_a_row=64, limit=64, reason="environment_error", count=64, example="OSError: gone")
    assert hopeless(all_of_them, 64) == (
        "the last 64 trajectories were discarded, all as environment_error: OSError: gone. Not one good trajectory came between "
        "(environment.failAfter 64): mend the environment, then go on; what was trained is kept"
    )
    assert "(environment.failAfter 64, here 80: twice as many as were under way): mend" in hopeless(all_of_them, 80)


@pytest.mark.parametrize("reason", [*ADVICE, "malformed"])
def test_each_reason_comes_with_what_to_do(reason: str) -> None:
    told = hopeless(Failures(in_a_row=3, limit=3, reason=reason, count=3), 3)
    assert ADVICE.get(reason, "see the rollouts' logs") in told


def test_nothing_learnt_is_said_of_whole_runs_only() -> None:
    assert unlearnt(Learning()) == ""
    assert unlearnt(Learning(updates=2, idle_updates=1, groups=4, zero_variance_groups=2)) == ""
    told = unlearnt(Learning(updates=2, idle_updates=2, groups=4, zero_variance_groups=4))
    assert told.startswith("nothing was learnt from rewards")
    assert "each of the 4 groups" in told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand  blanks ", "two lines and blanks"),
        ("\x1b[31mred\x07\u202e", "[31mred"),
        ("é→日本", "é→日本"),
        ("\ud800", ""),
        ("x" * 50, "x" * 9 + "…"),
        ("", ""),
    ],
)
def test_words_of_others_fit_one_line(text: str, shown: str) -> None:
    assert one_line(text, 10 if len(text) > 40 else 40) == shown
