"""The estimate in words: assumptions first, then the table. Owns the layout; owns no figure."""

from collections.abc import Sequence

from asyncppo.estimate.costs import Estimate
from asyncppo.estimate.speeds import Speeds
from asyncppo.estimate.workload import Workload
from asyncppo.report.wording import count, duration, short

HEAD = (
    "strategy",
    "exact",
    "update",
    "of Recompute",
    "stall",
    "learner",
    "sampling",
    "extra forwards",
    "versions",
    "memory",
    "disk",
    "devices",
)


def assumptions(load: Workload, speeds: Speeds) -> str:
    """What the figures stand on."""
    active = f", {load.active / 1e9:.3g}B of them active" if load.active != load.parameters else ""
    return "\n".join(
        [
            f"model: {load.parameters / 1e9:.3g}B parameters{active} (from {load.origin}); "
            f"{size(load.train_size)} on the train side, {size(load.engine_size)} published",
            f"batch: {load.batch:,} trajectories of {load.tokens:,.0f} tokens, {load.sampled:,.0f} of them sampled; "
            f"{load.slots:,} episodes at once; {load.crossings:.2f} publications in a trajectory's life",
            f"speeds ({speeds.origin}): forward {count(int(speeds.forward))}, train {count(int(speeds.train))}, decode "
            f"{count(int(speeds.decode))} a rollout tokens/s; "
            f"pull {size(speeds.pull)}/s, copy {size(speeds.copy)}/s, disk {size(speeds.disk)}/s",
        ]
    )


def table(found: Sequence[Estimate]) -> str:
    """One line per route."""
    base = next((each.update for each in found if each.route.label == "Recompute"), 0.0)
    lines = [list(HEAD)]
    for each in found:
        lines.append(
            [
                each.route.label,
                "yes" if each.route.strategy.exact else "no",
                seconds(each.update),
                f"{each.update / base:.2f} x" if base else "-",
                seconds(each.stall),
                seconds(each.learner),
                seconds(each.sampling),
                count(int(each.forward_tokens)),
                f"{each.live:.0f}",
                size(each.memory + each.workers_memory),
                size(each.disk),
                f"+{each.devices}",
            ]
        )
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    text = [
        "  ".join(
            cell.ljust(w) if place == 0 else cell.rjust(w)
            for place, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(
        [*text, *(f"{each.route.label} cannot be had: {each.obstacle}" for each in found if each.obstacle)]
    )


def seconds(value: float) -> str:
    """Seconds of any size."""
    return f"{value * 1e3:.1f} ms" if value < 0.01 else short(value) if value < 60 else duration(value)


def size(value: float) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"
