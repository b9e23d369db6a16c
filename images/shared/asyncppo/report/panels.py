"""How panels of our pictures look: colours, title, grid. Owns the look; draws no figure."""

from typing import Any

INK, MUTED, GRID, PALE = "#1f2933", "#6b7785", "#e4e8ec", "#eef1f4"
BLUE, ORANGE, GREEN = "#2563a8", "#d9822b", "#2e8b57"
SPARE = ("#c9a227", "#a05a5a", "#7f8fa6", "#4c6b8a")


def style(panel: Any, title: str, x: str = "", y: str = "") -> None:
    """Title, labels, grid and spines of a matplotlib axes."""
    panel.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK, pad=12)
    panel.set_xlabel(x, fontsize=9.5, color=MUTED)
    panel.set_ylabel(y, fontsize=9.5, color=MUTED)
    panel.tick_params(labelsize=9, colors=MUTED, length=0)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color("#b8c0c8")
