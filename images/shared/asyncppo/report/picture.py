"""report.png: reward, staleness, discrepancy against staleness, and where the time of each role went, on one page.

Owns the drawing. Does not own any figure (`measures.py`) nor when it is drawn (`asyncppo.local`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from asyncppo.report.history import running_mean
from asyncppo.report.measures import Summary, UpdateMetrics
from asyncppo.report.panels import BLUE, GREEN, INK, MUTED, ORANGE, PALE, SPARE, style
from asyncppo.report.wording import duration, percent, scientific, superscript

COLORS = {
    "Training": BLUE,
    "sampling": BLUE,
    "Scoring": "#5aa9a3",
    "environment": GREEN,
    "Sync": ORANGE,
    "paused": ORANGE,
    "Straggler": "#8d6bb0",
    "Batch": "#b8c4d0",
    "Nothing": PALE,
    "idle": PALE,
}
"""Activities in the order they are drawn; the same colour means the same kind of thing in every role."""
FLOAT32, NOISE_LEVEL = 2.0**-23, 2e-6
LABELS = {"Batch": "waiting for a batch", "Straggler": "waiting for a straggler", "Nothing": "idle"}


@dataclass(frozen=True)
class Reference:
    """A line to read the reward against, such as perfect play."""

    label: str
    value: float


def draw(summary: Summary, updates: Sequence[UpdateMetrics], reference: Reference | None = None) -> bytes:
    """The picture as PNG bytes. Needs matplotlib (the `local` extra)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 8.2), dpi=120, facecolor="white")
    panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.075, right=0.965, top=0.845, bottom=0.085, wspace=0.22, hspace=0.4)
    _heading(figure, summary)
    _reward(panels[0][0], summary, updates, reference)
    _staleness(panels[0][1], summary)
    _discrepancy(panels[1][0], summary)
    _time(panels[1][1], summary.time)
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _heading(figure: Any, summary: Summary) -> None:
    exact = "exact" if summary.exact else "inexact"
    figure.text(0.075, 0.955, summary.job, fontsize=17, fontweight="bold", color=INK, va="center")
    facts = [
        f"{summary.strategy} ({exact})",
        f"{summary.updates:,} updates in {duration(summary.wall_seconds)}",
        f"old log-probs verified exact: {percent(summary.old_logits.exact_coverage)} of tokens",
        f"ledger {'balanced' if summary.ledger.balanced else 'NOT BALANCED'}",
    ]
    figure.text(0.075, 0.92, "  ·  ".join(facts), fontsize=10.5, color=MUTED, va="center")


def _note(panel: Any, words: str) -> None:
    panel.set_title(words, loc="right", fontsize=10, color=INK, pad=12)


def _nothing(panel: Any, words: str) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", va="center", fontsize=10, color=MUTED)


def _reward(panel: Any, summary: Summary, updates: Sequence[UpdateMetrics], reference: Reference | None) -> None:
    style(panel, "Reward", "update", "mean reward of a batch")
    if not updates:
        return _nothing(panel, "no update was trained")
    x = [update.update for update in updates]
    y = [update.reward for update in updates]
    width = max(1, len(y) // 20)
    smooth = running_mean(y, width)
    panel.plot(x, y, color=BLUE, alpha=0.28, linewidth=1.0)
    panel.plot(x, smooth, color=BLUE, linewidth=2.2, marker="o" if len(x) == 1 else "")
    if reference is not None:
        panel.axhline(reference.value, color=GREEN, linewidth=1.2, linestyle=(0, (5, 4)))
        panel.annotate(
            f"{reference.label} {reference.value:g}",
            (0.01, reference.value),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=9,
            color=GREEN,
        )
    low, high = min(0.0, *y), max([*y, reference.value if reference else 0.0])
    panel.set_ylim(low, high + 0.12 * ((high - low) or 1.0))
    panel.margins(x=0.01)
    panel.xaxis.get_major_locator().set_params(integer=True)
    _note(panel, f"first tenth {summary.reward.first:.3f}  ·  last {summary.reward.last:.3f}")
    return None


def _staleness(panel: Any, summary: Summary) -> None:
    style(panel, "Staleness of trained tokens", "versions behind when trained", "share of tokens")
    histogram = summary.staleness.histogram
    total = sum(histogram.values())
    if not total:
        return _nothing(panel, "no token was trained")
    shares = [histogram.get(staleness, 0) / total for staleness in range(max(histogram) + 1)]
    bars = panel.bar(range(len(shares)), shares, width=0.68, color=BLUE)
    if len(shares) <= 12:
        panel.bar_label(bars, [percent(share) for share in shares], fontsize=9, color=INK, padding=2)
    bound = summary.staleness_bound
    panel.axvline(bound + 0.5, color=ORANGE, linewidth=1.4, linestyle=(0, (5, 4)))
    panel.annotate(
        f"bound {bound}",
        (bound + 0.5, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(5, 0),
        textcoords="offset points",
        va="top",
        fontsize=9,
        color=ORANGE,
    )
    right = max(len(shares) - 1, bound) + 0.95
    panel.set_xlim(-0.6, right)
    panel.set_ylim(0.0, max(shares) * 1.18)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _note(panel, f"mean {summary.staleness.mean:.2f}  ·  max {summary.staleness.max}")
    return None


def _discrepancy(panel: Any, summary: Summary) -> None:
    points = summary.discrepancy.by_staleness
    weight = sum(tokens for tokens, _ in points.values())
    # The scale goes into the label: values near 1e-7 would else be ticks of ten characters.
    exponent = math.floor(math.log10(max([*(mean for _, mean in points.values()), FLOAT32])))
    unit = "nats" if exponent >= -2 else f"10{superscript(exponent)} nats"
    style(panel, "Discrepancy against staleness", "versions behind when trained", f"mean |old − behavior| ({unit})")
    if not weight:
        return _nothing(panel, "no discrepancy was measured")
    x = sorted(points)
    y = [points[staleness][1] for staleness in x]
    sizes = [30.0 + 220.0 * points[staleness][0] / weight for staleness in x]
    x_mean = sum(tokens * staleness for staleness, (tokens, _) in points.items()) / weight
    y_mean = sum(tokens * mean for tokens, mean in points.values()) / weight
    slope = summary.discrepancy.slope
    ends = [x[0] - 0.3, x[-1] + 0.3]
    panel.yaxis.set_major_formatter(lambda value, _: f"{value / 10.0**exponent if exponent < -2 else value:.3g}")
    panel.plot(ends, [y_mean + slope * (at - x_mean) for at in ends], color=ORANGE, linewidth=1.6, zorder=2)
    panel.scatter(x, y, s=sizes, color=BLUE, zorder=3, edgecolor="white", linewidth=1.0)
    top = max(*y, 0.0) * 1.3
    if top < NOISE_LEVEL:
        # Without something to compare with, numerical noise would look like a finding.
        top = max(top, FLOAT32 * 1.35)
        panel.axhline(FLOAT32, color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)))
        panel.annotate(
            f"resolution of float32 {scientific(FLOAT32)}",
            (0.01, FLOAT32),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=9,
            color=MUTED,
        )
    panel.set_ylim(0.0, top)
    panel.set_xlim(x[0] - 0.6, x[-1] + 0.6)
    panel.xaxis.get_major_locator().set_params(integer=True)
    _note(panel, f"slope {scientific(summary.discrepancy.slope)}")
    panel.text(
        0.99,
        0.96,
        f"largest |old − behavior| of a token {scientific(summary.discrepancy.max_abs)}",
        transform=panel.transAxes,
        ha="right",
        va="top",
        fontsize=9,
        color=MUTED,
    )
    return None


def _time(panel: Any, time: Mapping[str, Mapping[str, float]]) -> None:
    style(panel, "Where the time went")
    roles = [(role, spent) for role, spent in time.items() if sum(spent.values()) > 0]
    if not roles:
        return _nothing(panel, "no role told its times")
    panel.grid(False)
    activities = list(dict.fromkeys(name for _, spent in roles for name in _known_first(spent)))
    spare = iter(SPARE * (1 + len(activities) // len(SPARE)))
    colors = {name: COLORS.get(name) or next(spare) for name in activities}
    for row, (_, spent) in enumerate(roles):
        left, total = 0.0, sum(spent.values())
        for name in _known_first(spent):
            share = spent[name] / total
            panel.barh(row, share, left=left, height=0.58, color=colors[name], edgecolor="white", linewidth=1.0)
            if share >= 0.07:
                shade = "white" if name not in ("Batch", "Nothing", "idle") else INK
                panel.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", fontsize=9, color=shade)
            left += share
    panel.set_yticks(range(len(roles)), [role for role, _ in roles], fontsize=10, color=INK)
    panel.set_ylim(len(roles) - 0.4, -0.6)
    panel.set_xlim(0.0, 1.0)
    panel.set_xticks([])
    panel.spines["bottom"].set_visible(False)
    panel.legend(
        handles=_legend(colors),
        loc="upper left",
        bbox_to_anchor=(-0.02, 0.02),
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.4,
    )
    return None


def _known_first(spent: Mapping[str, float]) -> list[str]:
    order = list(COLORS)
    return sorted(
        (name for name, seconds in spent.items() if seconds > 0),
        key=lambda name: (order.index(name) if name in order else len(order), name),
    )


def _legend(colors: Mapping[str, str]) -> list[Any]:
    from matplotlib.patches import Patch

    labels: dict[str, list[str]] = {}
    for name, color in colors.items():
        labels.setdefault(color, [])
        if LABELS.get(name, name.lower()) not in labels[color]:
            labels[color].append(LABELS.get(name, name.lower()))
    return [Patch(facecolor=color, label=" / ".join(names)) for color, names in labels.items()]
