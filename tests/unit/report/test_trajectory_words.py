"""Trajectories on the screen: every token with its id, text, role, version, log-probs and mask."""

import io

import msgspec
from rich.console import Console, RenderableType
from tests.unit.report.builders import trajectory

from asyncppo.report.trajectories import Listing, RunView, TrajectoryLine, TrajectoryView
from asyncppo.report.trajectory_words import NARROWEST, render_listing, render_trajectory


def shown(renderable: RenderableType, width: int = 80) -> str:
    """So many columns of plain text, each line stripped and its runs of blanks squeezed."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
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


HOSTILE = "[/red] [bold]x[/bold] \x1b[31mred\x1b]0;title\x07 \u202eabc\u200b\u2066 \x9b1m \r over"


def test_nothing_that_was_said_does_anything_to_the_terminal() -> None:
    line = msgspec.structs.replace(trajectory().line, member=HOSTILE, end_reason=HOSTILE, reason=HOSTILE)
    runs = [RunView(role="model", text=f"{HOSTILE}\nnext")]
    token = msgspec.structs.replace(trajectory().tokens[1], text=HOSTILE)
    segment = msgspec.structs.replace(trajectory().segments[1], reason=HOSTILE, weights_hash=HOSTILE)
    view = trajectory(
        line=line, job=HOSTILE, error=f"{HOSTILE}\nTraceback", runs=runs, tokens=[token], segments=[segment]
    )
    for renderable in (render_trajectory(view), render_listing(Listing(job=HOSTILE, received=1, trajectories=[line]))):
        text = shown(renderable, width=2000)
        assert text.replace("\n", "").isprintable()
        assert r"[/red] [bold]x[/bold] \x1b[31mred\x1b]0;title\x07 \u202eabc\u200b\u2066 \x9b1m \r over" in text
    assert "next" in text.splitlines() or "next" in shown(render_trajectory(view), width=2000).splitlines()


def test_figures_are_never_cut_and_long_text_is_folded() -> None:
    token = msgspec.structs.replace(trajectory().tokens[1], id=128_009, version=12_345, text="x" * 30)
    text = shown(render_trajectory(trajectory(tokens=[token] * 1234)), width=NARROWEST)
    assert text.count("128009") == 1234
    assert text.count("12345") == 1234
    assert text.count("-1.250000") == 2468
    assert "".join(text.split()).count("x" * 10) >= 1234
    assert "…" not in text


def test_without_a_tokenizer_the_ids_are_shown_and_it_says_so() -> None:
    text = shown(render_trajectory(trajectory(text="", runs=[])))
    assert "tokenizer is not to be had" in text
    assert "-1.250000" in text


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
