"""Trajectories on the screen: every token with its id, text, role, version, log-probs and mask."""

import io

import msgspec
from rich.console import Console, RenderableType
from tests.unit.report.builders import trajectory

from asyncppo.report.trajectories import Listing, TrajectoryLine, TrajectoryView
from asyncppo.report.trajectory_words import render_listing, render_trajectory


def shown(renderable: RenderableType) -> str:
    """80 columns of plain text, each line stripped and its runs of blanks squeezed."""
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(" ".join(line.split()) for line in console.file.getvalue().splitlines())


def test_a_trajectory_token_by_token() -> None:
    text = shown(render_trajectory(trajectory()))
    for line in (
        "trajectory 42 group 6 attempt 1 by rollout-1",
        "reward 0.900 ended done turns 2 versions 3–4",
        "trained into version 6, staleness 2",
        "text <bos> 7 > 11 =",
        "# id text role version rollout log-p old log-p mask",
        "0 1 <bos> environment ·",
        "1 10 7 model 3 -1.250000 -1.250000 ✓",
        "3 14 11 model 4 -0.500000 -0.750000 ·",
        "0 1–1 3 aaaa cccc exact_interrupt",
        "1 3–3 4 bbbb not scored unscored",
    ):
        assert line in text.splitlines(), line


def test_a_pruned_trajectory_says_so() -> None:
    assert "no longer kept" in shown(render_trajectory(trajectory(pruned=True, tokens=[])))


def test_text_with_markup_and_line_breaks_stays_text() -> None:
    token = msgspec.structs.replace(trajectory().tokens[1], text="[bold]\n")
    assert "1 10 [bold]\\n model" in shown(render_trajectory(trajectory(tokens=[trajectory().tokens[0], token])))


def test_the_listing() -> None:
    lines = [
        trajectory().line,
        TrajectoryLine(id=41, group=5, member="rollout-0", fate="Discarded", reason="zero_variance", tokens=3, versions=(4, 4)),
        TrajectoryLine(id=40, group=5, member="rollout-0", fate="Waiting", reward=1.0, end_reason="done"),
    ]  # fmt: skip
    text = shown(render_listing(Listing(job="guess", received=1234, trajectories=lines)))
    assert "guess: 1,234 trajectories, the newest 3" in text
    assert "42 6 0.90 2 3–4 2 done trained" in text.splitlines()
    assert "41 5 0.00 3 4 discarded (zero_variance)" in text.splitlines()
    assert "40 5 1.00 0 done waiting" in text.splitlines()


def test_an_empty_run_has_an_empty_listing() -> None:
    assert "guess: 0 trajectories" in shown(render_listing(Listing(job="guess", received=0, trajectories=[])))


def test_it_travels_as_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(trajectory()), type=TrajectoryView) == trajectory()
    assert b'"behaviorLogprob":-1.25' in msgspec.json.encode(trajectory())
