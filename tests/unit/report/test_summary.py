"""summary.json: the keys that others read, round trips, and the words on the screen."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.unit.local.builders import job, status
from tests.unit.report.builders import summary

from asyncppo.errors import UserError
from asyncppo.report.measures import LedgerTotals, OldLogits, Quantiles
from asyncppo.report.summary import encode_summary, read_summary, summarize
from asyncppo.report.wording import clock, count, duration, percent, scientific, short
from asyncppo.report.words import render_summary


def test_every_key_that_is_promised_is_there() -> None:
    told = json.loads(encode_summary(summary()))
    assert {"strategy", "versions", "wallSeconds"} <= told.keys()
    assert {"first", "last", "best"} <= told["reward"].keys()
    assert {"exactCoverage", "violations"} <= told["oldLogits"].keys()
    assert {"mean", "max", "histogram"} <= told["staleness"].keys()
    assert {"k3", "maxAbs", "slope"} <= told["discrepancy"].keys()
    fates = {"leased", "returned", "expired", "inFlight", "received", "trained", "discarded", "waiting", "tokens"}
    assert fates <= told["ledger"].keys()
    assert told["ledger"]["discarded"] == {"zero_variance": 6}
    assert {"sampled", "scored", "discarded", "unscored"} <= told["ledger"]["tokens"].keys()
    assert {"count", "pauseSeconds", "scoreSeconds", "loadSeconds"} <= told["syncs"].keys()
    assert told["syncs"]["pauseSeconds"] == {"p50": 0.005, "p95": 0.02, "max": 0.1}
    assert {"tokensPerSecond", "trajectoriesPerSecond"} <= told["throughput"].keys()


def test_it_reads_back_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_bytes(encode_summary(summary()))
    assert read_summary(path) == summary()


def test_no_summary_and_a_foreign_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no summary yet"):
        read_summary(tmp_path / "summary.json")
    (tmp_path / "summary.json").write_text('{"job": 3}')
    with pytest.raises(UserError, match="not a summary"):
        read_summary(tmp_path / "summary.json")


def test_it_is_made_from_the_learners_last_status() -> None:
    made = summarize(job(seed=5), status(), "Stopped", "stopped", {"rollout-0": {"idle": 3.0}}, {"learner": 1})
    assert (made.phase, made.seed, made.updates, made.versions, made.staleness_bound) == ("Stopped", 5, 120, 121, 2)
    assert made.reward == status().reward
    assert made.ledger == status().ledger
    assert made.time == {"learner": status().time, "rollout-0": {"idle": 3.0}}
    assert made.restarts == {"learner": 1}


def words(**changes: object) -> str:
    """The summary as an 80-column screen shows it."""
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(render_summary(summary(**changes)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_words_show_both_equations() -> None:
    text = " ".join(words().split())
    for expected in (
        "first tenth 0.060 last tenth 0.740 best 0.750",
        "Interruption exact verified 100% of tokens 0 violations",
        "mean 0.84 max 2 bound 2",
        "slope −1.0×10⁻⁹ nats per version",
        "balanced",
        "110 leased = 100 received + 4 returned + 1 expired + 5 in flight",
        "100 received = 90 trained + 6 discarded + 4 waiting",
        "400 sampled = 390 scored + 10 discarded",
        "discarded 2.5%: returned 10",
    ):
        assert expected in text, expected


def test_trouble_is_said() -> None:
    assert "NOT BALANCED" in words(ledger=LedgerTotals(leased=1))
    assert "3 violations" in words(
        old_logits=OldLogits(strategy="Interruption", exact=True, exact_coverage=0.5, violations=3)
    )
    assert "learner 2, rollout-0 1" in words(restarts={"rollout-0": 1, "learner": 2})
    assert Quantiles().p50 == 0.0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (percent(1.0), "100%"), (percent(0.99999), "99.9%"), (percent(0.0), "0%"), (percent(1e-9), "0.1%"),
        (duration(12.34), "12.3 s"), (duration(151), "2 min 31 s"), (duration(7384), "2 h 03 min"),
        (scientific(0.0), "0"), (scientific(-2.1e-6), "−2.1×10⁻⁶"), (scientific(0.034), "0.034"), (scientific(2.5e12), "2.5×10¹²"),
        (short(0.041), "41 ms"), (short(1.25), "1.2 s"), (count(812), "812"), (count(45_213), "45.2k"), (count(3_100_000), "3.1M"),
        (clock(7), "0:07"), (clock(754), "12:34"), (clock(3723), "1:02:03"), (clock(-1), "0:00"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(said: str, expected: str) -> None:
    assert said == expected
