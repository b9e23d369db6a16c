"""A study in words: the table, and what it says and does not say. Owns the layout; owns no figure."""

import math
from collections.abc import Callable, Sequence

from asyncppo.report.wording import duration, percent, scientific
from asyncppo.study.statistics import Interval, Row

MEGABYTE = 1e6
Column = tuple[str, Callable[[Row], str]]

LEARNT: tuple[Column, ...] = (
    ("strategy", lambda row: row.strategy),
    ("exact", lambda row: "yes" if row.cells[0].exact else "no"),
    ("seeds", lambda row: str(len(row.cells))),
    ("reward", lambda row: f"{row.mean('reward'):.3f} ± {row.spread:.3f}"),
    ("difference", lambda row: difference(row.difference)),
    ("staleness", lambda row: f"{row.mean('staleness'):.2f}"),
    ("slope", lambda row: scientific(row.mean("slope"))),
    ("false masks", lambda row: share(row.error("false_mask"))),
    ("missed masks", lambda row: share(row.error("missed_mask"))),
    ("false clips", lambda row: share(row.error("false_clip"))),
    ("missed clips", lambda row: share(row.error("missed_clip"))),
)
COSTS: tuple[Column, ...] = (
    ("strategy", lambda row: row.strategy),
    ("coverage", lambda row: percent(row.mean("coverage"))),
    ("seconds", lambda row: known(row.cost("wall"), duration)),
    ("learner", lambda row: known(row.cost("learner"), duration)),
    ("stall", lambda row: known(row.cost("stall"), duration)),
    ("extra forwards", lambda row: known(row.cost("extra_forwards"), lambda value: f"{value:.2f} x")),
    ("MB held", lambda row: known(row.cost("bytes_held"), lambda value: f"{value / MEGABYTE:.2f}")),
)


def table(rows: Sequence[Row], swept: str) -> str:
    """All rows, one block of two tables per value of the swept field ("" without one)."""
    blocks = []
    for value in dict.fromkeys(row.value for row in rows):
        here = [row for row in rows if row.value == value]
        head = [f"{swept} = {value}"] if swept else []
        blocks.append("\n".join([*head, _grid(here, LEARNT), "", _grid(here, COSTS)]))
    return "\n\n".join(blocks)


def legend(rows: Sequence[Row], first: str) -> str:
    """What the columns mean, and how sure the differences are."""
    sure = [row for row in rows if row.difference is not None and row.difference.excludes_zero]
    told = (
        "Intervals that exclude 0: " + ", ".join(_named(row) for row in sure) + "."
        if sure
        else "No interval of a difference excludes 0: this study shows no ranking of rewards."
    )
    return "\n".join(
        [
            "reward: mean of the last fifth of the updates ± standard deviation over seeds. difference: to "
            f"{first} at the same seeds, with a 95 % interval (t).",
            "masks and clips: share of trained tokens decided otherwise than under exact old log-probs. slope: of |old − behavior| against "
            "staleness.",
            "extra forwards: tokens beside the policy's own forward, over trained trajectories' tokens. seconds: of the CPU on the virtual "
            "schedule, where everything is done one after the other; of the clock in real runs.",
            told,
        ]
    )


def difference(found: Interval | None) -> str:
    """A difference with its interval; a dash for the strategy the others are compared with."""
    if found is None:
        return "-"
    if math.isinf(found.low):
        return f"{found.mean:+.3f} (one seed)"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def share(value: float | None) -> str:
    """A share of tokens; a dash where it was not measured."""
    return known(value, percent)


def known(value: float | None, say: Callable[[float], str]) -> str:
    """A figure in words; a dash where it was not measured."""
    return "-" if value is None else say(value)


def _named(row: Row) -> str:
    return row.strategy if row.value is None else f"{row.strategy} at {row.value}"


def _grid(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    lines = [[name for name, _ in columns], *([cell(row) for _, cell in columns] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
