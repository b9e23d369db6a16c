"""The live view at 80 columns and the plain line."""

import io

import pytest
from rich.console import Console
from tests.unit.local.builders import snapshot, status

from asyncppo.local.plain import PlainView, line
from asyncppo.local.snapshot import Snapshot, sparkline
from asyncppo.local.supervisor import RoleView
from asyncppo.local.view import render
from asyncppo.report.measures import Failures, Learning, LedgerTotals, OldLogits, Staleness

FAILING = Failures(in_a_row=12, limit=64, reason="environment_error", count=10, example="KeyError: 'x'")


def drawn(moment: Snapshot, width: int = 80) -> str:
    """The panel as text."""
    console = Console(width=width, file=io.StringIO(), color_system=None, force_terminal=True)
    console.print(render(moment))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_panel_fits_80_columns_and_says_everything() -> None:
    text = drawn(snapshot())
    lines = text.rstrip("\n").splitlines()
    assert {len(line) for line in lines} == {80}
    assert "…" not in text
    for words in (
        "update 120 of 300", "version 120", "1:01 of about 2:31", "0.512", "first 0.061", "best 0.530",
        "mean 0.83  max 2  bound 2", "Interruption  exact  verified for 100% of tokens", "balanced  16.3k trained",
        "96 in flight  300 waiting", "3,045/s trained  1.0% of trajectories discarded", "stall 41 ms p50 82 ms p95",
        "waiting for trajectories (62% of a batch)", "ready  version 120  32 running  45.2k tokens", "paused",
        "restarted 1×",
    ):  # fmt: skip
        assert words in text, words


def test_one_row_per_subject() -> None:
    assert len(drawn(snapshot()).splitlines()) == 17


def test_before_the_learner_speaks() -> None:
    text = drawn(snapshot(status=None, rewards=[], roles=[RoleView("learner", "starting")]))
    assert "starting the roles" in text
    assert "update 0 of 300" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"silence": 12.0}, "no answer from the learner for 12 s"),
        ({"phase": "stopping: the learner saves"}, "stopping: the learner saves"),
        ({"roles": [RoleView("rollout-1", "restarting", 2, "killed by SIGKILL")]}, "restarting rollout-1 (killed by"),
        ({"status": status(ledger=LedgerTotals(leased=5))}, "NOT BALANCED"),
        ({"status": status(staleness=Staleness(mean=1.0, max=3))}, "max 3  bound 2"),
        ({"status": status(waiting_for="Straggler", message="group 7")}, "waiting for a straggler"),
        ({"status": status(failures=FAILING)}, "KeyError: 'x'"),
        (
            {"status": status(ledger=LedgerTotals(leased=5, received=4, in_flight=1, discarded={"empty": 3}, waiting=1))},
            "75.0% of trajectories discarded (empty)",
        ),
        ({"status": status(learning=Learning(updates=2, idle_updates=2, groups=4, zero_variance_groups=4))}, "nothing was learnt"),
        (
            {"exact": False, "strategy": "Recompute", "status": status(
                old_logits=OldLogits(strategy="Recompute", exact=False, exact_coverage=0.4)
            )},
            "Recompute  inexact  verified for 40.0% of tokens",
        ),
        (
            {"status": status(old_logits=OldLogits(strategy="Interruption", exact=True, exact_coverage=0.99999, violations=2))},
            "verified for 99.9%  2 violations",
        ),
    ],
)  # fmt: skip
def test_trouble_is_said(changes: dict[str, object], words: str) -> None:
    assert words in drawn(snapshot(**changes))


def test_the_plain_line_says_the_same() -> None:
    assert line(snapshot()) == (
        "[1:01] update 120/300  version 120  reward 0.512  staleness 0.83 (max 2, bound 2)  exact 100%  ledger balanced  "
        "discarded 1.0% (environment_error)  eta 1:30  waiting for trajectories (62% of a batch)"
    )
    assert line(snapshot(status=status(failures=FAILING))).endswith(
        "the last 12 trajectories were discarded, 10 as environment_error: KeyError: 'x'"
    )
    assert line(snapshot(status=None)) == "[1:01] starting the roles"


def test_the_plain_view_keeps_its_pace_but_tells_a_new_phase_at_once() -> None:
    stream = io.StringIO()
    with PlainView(stream, pace=3600) as view:
        for phase in ("running", "running", "ending", "ending"):
            view.update(snapshot(phase=phase))
        view.note("rollout-0: killed by SIGKILL; starting it again")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("ending")


def test_sparklines() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([0.5, 0.5, 0.5], 10) == "▁▁▁"
    assert sparkline([0, 1], 10) == "▁█"
    assert sparkline([float(n) for n in range(1000)], 8) == "▁▂▃▄▅▆▇█"
