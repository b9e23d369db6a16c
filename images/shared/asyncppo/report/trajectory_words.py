"""Trajectories as a person reads them: the listing, and one token by token. Owns the layout; does not own reading them.

Needs rich (the `local` extra).
"""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from asyncppo.printable import printable
from asyncppo.report.trajectories import Listing, SegmentView, TokenView, TrajectoryLine, TrajectoryView

QUIET = "bright_black"
GOOD, BAD, CAUTION = "green", "red", "yellow"
FATES = {"Trained": GOOD, "Discarded": CAUTION}
NARROWEST = 90
"""Columns that the tables need; on a narrower terminal its lines are broken by the terminal, and nothing is cut."""
MODEL, ENVIRONMENT = "bold cyan", "default"


def render_listing(listing: Listing) -> RenderableType:
    """The newest trajectories as a table."""
    table = Table(box=None, padding=(0, 1), header_style=QUIET, pad_edge=False)
    for name in ("id", "group", "reward", "tokens", "versions", "stale"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    table.add_column("fate", no_wrap=True)
    for line in listing.trajectories:
        table.add_row(
            str(line.id), str(line.group), f"{line.reward:.2f}", str(line.tokens), _versions(line),
            "" if line.staleness is None else str(line.staleness),
            Text(_word(line.end_reason)), _fate(line),
        )  # fmt: skip
    head = Text.assemble(
        (_word(listing.job), "bold"),
        f": {listing.received:,} trajectories",
        (f", the newest {len(listing.trajectories)}", QUIET),
    )
    return Group(head, Text(), table)


def render_trajectory(view: TrajectoryView) -> RenderableType:
    """One trajectory: what it is, its text, its tokens."""
    parts: list[RenderableType] = [_heading(view), Text()]
    if view.pruned and view.line.fate == "InFlight":
        parts.append(Text("It is being produced: nothing of it has been handed in yet.", style=CAUTION))
    elif view.pruned:
        parts.append(Text("Its tokens are no longer kept: no checkpoint needs them any more.", style=CAUTION))
    else:
        parts += [_colored_text(view), Text(), _tokens(view.tokens)]
    if view.segments:
        parts += [Text(), _segments(view.segments)]
    return Group(*parts)


def _heading(view: TrajectoryView) -> Text:
    line = view.line
    text = Text.assemble(
        ("trajectory ", QUIET), (str(line.id), "bold"), (f"  group {line.group}  attempt {view.attempt}", QUIET),
        (f"  by {_word(line.member)}\n", QUIET),
        ("reward ", QUIET), (f"{line.reward:.3f}", "bold"), ("  ended ", QUIET), _word(line.end_reason) or "not yet",
        ("  turns ", QUIET), str(view.turns), ("  versions ", QUIET), _versions(line), "\n",
    )  # fmt: skip
    text.append_text(_fate(line))
    if line.staleness is not None:
        text.append(f" into version {view.trained_version}, staleness {line.staleness}", style=QUIET)
    if view.error:
        text.append(f"\n{printable(view.error)}", style=BAD)
    return text


def _colored_text(view: TrajectoryView) -> Text:
    """The text as the tokenizer joins it, what the model said in colour."""
    text = Text("text  ", style=QUIET)
    if not view.text and view.tokens:
        text.append("the tokenizer is not to be had here, so there are ids only", style=CAUTION)
    for run in view.runs:
        text.append(printable(run.text), style=MODEL if run.role == "model" else ENVIRONMENT)
    return text


def _tokens(tokens: list[TokenView]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style=QUIET, pad_edge=False)
    # Figures are never cut: the text column alone gives way, and folds.
    table.add_column("#", justify="right", style=QUIET, no_wrap=True, min_width=len(str(len(tokens))))
    widest = max((len(str(token.id)) for token in tokens), default=2)
    table.add_column("id", justify="right", no_wrap=True, min_width=widest)
    table.add_column("text", overflow="fold", min_width=8, max_width=24)
    table.add_column("role", no_wrap=True, min_width=len("environment"))
    table.add_column("version", justify="right", no_wrap=True, min_width=len("version"))
    table.add_column("rollout log-p", justify="right", no_wrap=True, min_width=len("rollout log-p"))
    table.add_column("old log-p", justify="right", no_wrap=True, min_width=len("-10.123456"))
    table.add_column("mask", justify="center", no_wrap=True, min_width=4)
    for at, token in enumerate(tokens):
        model = token.role == "model"
        table.add_row(
            str(at), str(token.id), Text(repr(token.text)[1:-1], style=MODEL if model else ENVIRONMENT), token.role,
            "" if token.version is None else str(token.version), _number(token.behavior_logprob),
            _number(token.old_logprob), Text("✓", style=GOOD) if token.mask else Text("·", style=QUIET),
        )  # fmt: skip
    return table


def _segments(segments: list[SegmentView]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style=QUIET, pad_edge=False)
    for name in ("segment", "tokens", "version"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("sampled from", "scored by", "how"):
        table.add_column(name, no_wrap=True)
    for segment in segments:
        same = segment.scorer_version == segment.version and bool(segment.scorer_hash)
        table.add_row(
            str(segment.index), f"{segment.start}–{segment.end - 1}", str(segment.version), Text(_word(segment.weights_hash[:12])),
            Text(_word(segment.scorer_hash[:12]) or ("no version" if segment.kind else "not scored"), style=GOOD if same else CAUTION),
            Text(_word(segment.kind or f"{segment.state.lower()} {segment.reason}".strip())),
        )  # fmt: skip
    return table


def _versions(line: TrajectoryLine) -> str:
    if line.versions is None:
        return ""
    oldest, newest = line.versions
    return str(oldest) if oldest == newest else f"{oldest}–{newest}"


def _fate(line: TrajectoryLine) -> Text:
    words = f"{line.fate.lower()} ({line.reason})" if line.reason else line.fate.lower()
    return Text(_word(words), style=FATES.get(line.fate, ""))


def _word(text: str) -> str:
    """Something of one line that others wrote."""
    return printable(text, lines=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
