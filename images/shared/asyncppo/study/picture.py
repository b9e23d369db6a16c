"""study.png: reward over updates, paired differences, what a proxy decides wrongly, and the slope that gives it away.

Owns the drawing; without a sweep the first panel is over updates, with one over the swept values. Does not own any figure.
"""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from asyncppo.report.history import running_mean
from asyncppo.report.panels import BLUE, GREEN, INK, MUTED, ORANGE, SPARE, style
from asyncppo.study.statistics import Row, average

COLORS = (BLUE, ORANGE, GREEN, "#8d6bb0", *SPARE)
KINDS = (
    ("false_mask", "false masks"),
    ("missed_mask", "missed masks"),
    ("false_clip", "false clips"),
    ("missed_clip", "missed clips"),
)


def draw(name: str, rows: Sequence[Row], swept: str) -> bytes:
    """The picture as PNG bytes. swept: the field's path, "" without a sweep. Needs matplotlib (the `local` extra)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 8.6), dpi=110, facecolor="white")
    panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.97, top=0.86, bottom=0.08, wspace=0.2, hspace=0.42)
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    colors = {strategy: COLORS[place % len(COLORS)] for place, strategy in enumerate(strategies)}
    seeds = max((len(row.cells) for row in rows), default=0)
    figure.text(0.07, 0.955, f"{name}: a study", fontsize=17, fontweight="bold", color=INK, va="center")
    facts = (
        f"{len(strategies)} strategies, {seeds} seed{'s' * (seeds != 1)} each, {rows[0].cells[0].mode} schedule"
        if rows
        else ""
    )
    figure.text(0.07, 0.92, facts + (f"  ·  swept: {swept}" if swept else ""), fontsize=10.5, color=MUTED, va="center")
    if swept:
        _over_values(panels[0][0], rows, colors, swept)
    else:
        _over_updates(panels[0][0], rows, colors)
    _differences(panels[0][1], rows, colors)
    _errors(panels[1][0], rows, colors)
    _slopes(panels[1][1], rows, colors)
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _over_updates(panel: Any, rows: Sequence[Row], colors: dict[str, str]) -> None:
    style(panel, "Reward", "update", "mean over seeds")
    for row in rows:
        length = min(len(cell.rewards) for cell in row.cells)
        curve = [average([cell.rewards[at] for cell in row.cells]) for at in range(length)]
        smooth = running_mean(curve, max(1, length // 12))
        panel.plot(range(1, length + 1), smooth, color=colors[row.strategy], linewidth=1.8, label=row.strategy)
    panel.legend(frameon=False, fontsize=9, labelcolor=INK)


def _over_values(panel: Any, rows: Sequence[Row], colors: dict[str, str], swept: str) -> None:
    style(panel, "Late reward", swept, "mean over seeds ± standard deviation")
    values = list(dict.fromkeys(row.value for row in rows))
    for strategy, color in colors.items():
        own = [row for row in rows if row.strategy == strategy]
        at = [values.index(row.value) for row in own]
        panel.errorbar(
            at,
            [row.mean("reward") for row in own],
            yerr=[row.spread for row in own],
            color=color,
            label=strategy,
            marker="o",
            capsize=3,
            linewidth=1.6,
        )
    panel.set_xticks(range(len(values)), [str(value) for value in values])
    panel.legend(frameon=False, fontsize=9, labelcolor=INK)


def _differences(panel: Any, rows: Sequence[Row], colors: dict[str, str]) -> None:
    own = [row for row in rows if row.difference is not None]
    first = next((row.strategy for row in rows if row.difference is None), "the first")
    style(panel, f"Difference of late reward to {first}", "same seeds, 95 % interval")
    if not own:
        panel.text(0.5, 0.5, "nothing to compare yet", transform=panel.transAxes, ha="center", color=MUTED)
        return
    panel.axvline(0.0, color=MUTED, linewidth=1.0)
    for place, row in enumerate(own):
        found = row.difference
        assert found is not None
        if not math.isinf(found.low):
            panel.plot([found.low, found.high], [place, place], color=colors[row.strategy], linewidth=2.2)
        panel.plot([found.mean], [place], marker="o", color=colors[row.strategy])
    panel.set_yticks(range(len(own)), [_named(row) for row in own], fontsize=9)
    panel.set_ylim(len(own) - 0.5, -0.5)


def _errors(panel: Any, rows: Sequence[Row], colors: dict[str, str]) -> None:
    style(panel, "Decided otherwise than under exact old log-probs", "", "share of trained tokens")
    own = [row for row in rows if row.error("false_mask") is not None and not row.cells[0].exact]
    if not own:
        panel.text(0.5, 0.5, "not measured, or nothing inexact", transform=panel.transAxes, ha="center", color=MUTED)
        return
    width = 0.8 / len(KINDS)
    shades = (BLUE, "#8fb3d9", ORANGE, "#eec28f")
    for place, (kind, label) in enumerate(KINDS):
        heights = [row.error(kind) or 0.0 for row in own]
        panel.bar([at + place * width for at in range(len(own))], heights, width, label=label, color=shades[place])
    panel.set_xticks(
        [at + 1.5 * width for at in range(len(own))], [_named(row) for row in own], fontsize=8, rotation=20
    )
    panel.legend(frameon=False, fontsize=9, labelcolor=INK)


def _slopes(panel: Any, rows: Sequence[Row], colors: dict[str, str]) -> None:
    style(panel, "Slope of |old − behavior| against staleness", "", "nats per version")
    panel.bar(range(len(rows)), [row.mean("slope") for row in rows], color=[colors[row.strategy] for row in rows])
    panel.set_xticks(range(len(rows)), [_named(row) for row in rows], fontsize=8, rotation=20)


def _named(row: Row) -> str:
    return row.strategy if row.value is None else f"{row.strategy} ({row.value})"
