"""estimate.png: an update's parts by strategy and the bytes each keeps; with a sweep, both over its values. Owns the drawing."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from asyncppo.estimate.costs import Estimate
from asyncppo.report.panels import BLUE, GREEN, INK, MUTED, ORANGE, SPARE, style

COLORS = (BLUE, ORANGE, GREEN, "#8d6bb0", *SPARE, INK, MUTED)
Swept = Sequence[tuple[Any, Sequence[Estimate]]]


def draw(name: str, swept: Swept, path: str) -> bytes:
    """PNG bytes. swept: value → estimates; one pair without a sweep, and path "". Needs matplotlib (the `local` extra)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 5.4), dpi=110, facecolor="white")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.13, right=0.97, top=0.8, bottom=0.14, wspace=0.42)
    figure.text(
        0.02, 0.93, f"{name}: what each strategy would cost", fontsize=16, fontweight="bold", color=INK, va="center"
    )
    if path:
        _curves(left, swept, path, "Seconds of an update", lambda each: each.update)
        _curves(right, swept, path, "GB of versions kept", lambda each: each.held / 1e9)
    else:
        _parts(left, swept[0][1])
        _held(right, swept[0][1])
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _parts(panel: Any, found: Sequence[Estimate]) -> None:
    style(panel, "One update", "seconds; what is longest beside the stall is waited for")
    for place, each in enumerate(found):
        panel.barh(place, each.stall, color=ORANGE, height=0.6, label="stall" if place == 0 else None)
        for offset, (value, color, label) in enumerate(
            (
                (each.learner, BLUE, "learner"),
                (each.sampling, GREEN, "sampling"),
                (each.workers, "#8d6bb0", "old-logit workers"),
            )
        ):
            where = place - 0.2 + 0.2 * offset
            panel.barh(where, value, left=each.stall, color=color, height=0.18, label=label if place == 0 else None)
    _names(panel, found)
    panel.legend(frameon=False, fontsize=8, labelcolor=INK)


def _held(panel: Any, found: Sequence[Estimate]) -> None:
    style(panel, "Versions kept", "GB")
    for place, each in enumerate(found):
        memory = (each.memory + each.workers_memory) / 1e9
        panel.barh(place, memory, color=BLUE, height=0.6, label="memory" if place == 0 else None)
        panel.barh(
            place, each.disk / 1e9, left=memory, color="#b8c4d0", height=0.6, label="disk" if place == 0 else None
        )
    _names(panel, found)
    panel.legend(frameon=False, fontsize=8, labelcolor=INK)


def _names(panel: Any, found: Sequence[Estimate]) -> None:
    panel.set_yticks(range(len(found)), [each.route.label for each in found], fontsize=8.5)
    panel.invert_yaxis()
    panel.grid(axis="x", color="#e4e8ec")
    panel.grid(False, axis="y")


def _curves(panel: Any, swept: Swept, path: str, title: str, figure_of: Any) -> None:
    style(panel, title, path)
    labels = [each.route.label for each in swept[0][1]]
    for place, label in enumerate(labels):
        values = [figure_of(found[place]) for _, found in swept]
        panel.plot(
            range(len(values)), values, marker="o", color=COLORS[place % len(COLORS)], linewidth=1.6, label=label
        )
    panel.set_xticks(range(len(swept)), [str(value) for value, _ in swept])
    panel.set_ylim(bottom=0.0)
    panel.legend(frameon=False, fontsize=7.5, labelcolor=INK)
