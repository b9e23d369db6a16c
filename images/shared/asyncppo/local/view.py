"""The live view on a terminal: one panel drawn again and again. Owns its looks at 80 columns and more; draws a Snapshot, asks nobody.

The plain form for pipes and logs is `plain.py`.
"""

import os
import sys
import termios
from types import TracebackType
from typing import Any, Self, TypeAlias

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncppo.local.snapshot import Snapshot, sparkline
from asyncppo.local.supervisor import RoleView
from asyncppo.report.measures import LearnerStatus, MemberView
from asyncppo.report.remarks import unlearnt
from asyncppo.report.wording import clock, count, percent, short

LABEL = "bright_black"
GOOD, BAD, CAUTION = "green", "bold red", "yellow"
SPARK_WIDTH = 24
LOCAL_FLAGS = 3
WORTH_A_REASON = 0.1
"""Share of discarded trajectories from which the commonest reason is named; below it the row stays one line."""
TerminalSettings: TypeAlias = list[Any]


class LiveView:
    """Keeps the panel on the screen. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._terminal: TerminalSettings | None = None

    def __enter__(self) -> Self:
        self._terminal = _without_echoed_controls()
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
        if self._terminal is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._terminal)

    def update(self, snapshot: Snapshot) -> None:
        """Draw anew."""
        self._live.update(render(snapshot), refresh=True)

    def note(self, words: str) -> None:
        """A line that stays, above the panel."""
        self._console.print(Text(words, style=CAUTION))


def _without_echoed_controls() -> TerminalSettings | None:
    """Keep the terminal from echoing `^C` into the panel, which would push it one line down. Returns the settings before."""
    if sys.stdin is None or not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
        return None  # nobody types here; and a job in the background that changes its terminal is stopped for it
    before = termios.tcgetattr(sys.stdin.fileno())
    changed = termios.tcgetattr(sys.stdin.fileno())
    changed[LOCAL_FLAGS] &= ~termios.ECHOCTL
    termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, changed)
    return before


def render(snapshot: Snapshot) -> RenderableType:
    """The panel."""
    status = snapshot.status
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style=LABEL, no_wrap=True)
    rows.add_column(overflow="fold")
    if status is not None:
        rows.add_row("reward", _reward(snapshot, status))
        rows.add_row("staleness", _staleness(snapshot, status))
    rows.add_row("old logits", _old_logits(snapshot))
    if status is not None:
        rows.add_row("ledger", _ledger(status))
        rows.add_row("tokens", _tokens(status))
        rows.add_row("syncs", _syncs(status))
    rows.add_row("now", Text(snapshot.doing))
    parts: list[RenderableType] = [_progress(snapshot), Text(), rows, Text(), _roles(snapshot)]
    return Panel(
        Group(*parts),
        title=Text.assemble((snapshot.job, "bold")),
        title_align="left",
        subtitle=Text(f"{snapshot.folder} · Ctrl-C stops and keeps everything", style=LABEL),
        subtitle_align="right",
        border_style="blue",
        padding=(1, 2),
    )


def _progress(snapshot: Snapshot) -> RenderableType:
    status = snapshot.status
    done = status.update if status is not None else 0
    eta = status.eta_seconds if status is not None else None
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    left = Text.assemble(("update ", LABEL), f"{done:,}", (f" of {snapshot.updates:,}", LABEL))
    if status is not None:
        left.append("  version ", style=LABEL).append(f"{status.version:,}")
    right = (
        Text.assemble(clock(snapshot.elapsed), (" of about ", LABEL), clock(snapshot.elapsed + eta)) if eta else None
    )
    bar = ProgressBar(total=max(1, snapshot.updates), completed=done, complete_style="blue", finished_style=GOOD)
    line.add_row(left, bar, right or Text(clock(snapshot.elapsed)))
    return line


def _reward(snapshot: Snapshot, status: LearnerStatus) -> Text:
    text = Text.assemble((f"{status.last_reward:.3f}", "bold"))
    text.append("  ").append(sparkline(snapshot.rewards, SPARK_WIDTH), style="blue")
    if status.update:
        text.append("  first ", style=LABEL).append(f"{status.reward.first:.3f}")
        text.append("  best ", style=LABEL).append(f"{status.reward.best:.3f}")
    if nothing := unlearnt(status.learning):
        text.append(f"\n{nothing}", style=CAUTION)
    return text


def _staleness(snapshot: Snapshot, status: LearnerStatus) -> Text:
    within = status.staleness.max <= snapshot.bound
    return Text.assemble(
        ("mean ", LABEL),
        f"{status.staleness.mean:.2f}",
        ("  max ", LABEL),
        (str(status.staleness.max), "" if within else BAD),
        (f"  bound {snapshot.bound}", LABEL),
    )


def _old_logits(snapshot: Snapshot) -> Text:
    text = Text(snapshot.strategy)
    text.append("  exact" if snapshot.exact else "  inexact", style=GOOD if snapshot.exact else CAUTION)
    if snapshot.status is None:
        return text
    figures = snapshot.status.old_logits
    if snapshot.status.update:
        expected = figures.exact_coverage == 1.0 or not snapshot.exact
        text.append("  verified for ", style=LABEL).append(percent(figures.exact_coverage), "" if expected else BAD)
        if not figures.violations and not figures.fallbacks:
            text.append(" of tokens", style=LABEL)
    if figures.violations:
        text.append(f"  {figures.violations} violations", style=BAD)
    if figures.fallbacks:
        text.append(f"  {figures.fallbacks} fallbacks", style=CAUTION)
    return text


def _ledger(status: LearnerStatus) -> Text:
    ledger = status.ledger
    text = Text.assemble(("balanced", GOOD) if ledger.balanced else ("NOT BALANCED", BAD))
    for number, name in ((ledger.trained, "trained"), (ledger.in_flight, "in flight"), (ledger.waiting, "waiting")):
        text.append(f"  {count(number)}").append(f" {name}", style=LABEL)
    return text


def _tokens(status: LearnerStatus) -> Text:
    text = Text.assemble(f"{count(round(status.throughput.tokens_per_second))}", ("/s trained", LABEL))
    mostly_lost = status.ledger.discarded_share > 0.5
    text.append(f"  {percent(status.ledger.discarded_share)}", style=BAD if mostly_lost else "")
    text.append(" of trajectories discarded", style=LABEL)
    if status.ledger.discarded_share > WORTH_A_REASON:
        text.append(f" ({status.ledger.commonest_discard})", style=LABEL)
    return text


def _syncs(status: LearnerStatus) -> Text:
    syncs = status.syncs
    text = Text.assemble(f"{syncs.count:,}")
    if syncs.count:
        text.append("  stall ", style=LABEL).append(short(syncs.stall_seconds.p50)).append(" p50 ", style=LABEL)
        text.append(short(syncs.stall_seconds.p95)).append(" p95", style=LABEL)
    if syncs.fenced:
        text.append(f"  {syncs.fenced} fenced", style=CAUTION)
    return text


def _roles(snapshot: Snapshot) -> RenderableType:
    members = {member.name: member for member in snapshot.status.members} if snapshot.status is not None else {}
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style=LABEL, no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    for role in snapshot.roles:
        rows.add_row(role.name, _role(role, members.get(role.name)))
    return rows


def _role(role: RoleView, member: MemberView | None) -> Text:
    if role.state != "running" or member is None:
        text = Text.assemble((role.state, GOOD if role.state == "running" else CAUTION))
    else:
        text = Text.assemble((member.state.lower(), GOOD if member.state == "Ready" else CAUTION))
        if member.version >= 0:
            text.append("  version ", style=LABEL).append(str(member.version))
        text.append("  paused" if member.paused else f"  {member.running} running", style=LABEL)
        text.append(f"  {count(member.sampled_tokens)} tokens", style=LABEL)
    if role.restarts:
        text.append(f"  restarted {role.restarts}×", style=CAUTION)
    return text
