"""A summary as a person reads it on the screen. Owns the rows and their order; does not own any figure (`measures.py`).

Needs rich (the `local` extra).
"""

from collections.abc import Mapping

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from asyncppo.report.measures import Audit, Quantiles, Summary
from asyncppo.report.wording import percent, scientific, short

QUIET = "bright_black"
GOOD, BAD, CAUTION = "green", "bold red", "yellow"
BAR = 12


def render_summary(summary: Summary) -> RenderableType:
    """One row per subject, names on the left."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style=QUIET, no_wrap=True)
    rows.add_column(overflow="fold")
    rows.add_row("reward", _reward(summary))
    if summary.learning.zero_variance_groups:
        rows.add_row("groups", _groups(summary))
    rows.add_row("old logits", _old_logits(summary))
    rows.add_row("staleness", _staleness(summary))
    rows.add_row("discrepancy", _discrepancy(summary))
    rows.add_row("trajectories", _trajectories(summary))
    rows.add_row("tokens", _tokens(summary))
    rows.add_row("syncs", _syncs(summary))
    rows.add_row("throughput", _throughput(summary))
    if summary.restarts:
        rows.add_row("restarts", Text(_list(summary.restarts), style=CAUTION))
    return rows


def _reward(summary: Summary) -> Text:
    reward = summary.reward
    return Text.assemble(
        ("first tenth ", QUIET), f"{reward.first:.3f}",
        ("  last tenth ", QUIET), (f"{reward.last:.3f}", "bold"),
        ("  best ", QUIET), f"{reward.best:.3f}",
    )  # fmt: skip


def _groups(summary: Summary) -> Text:
    learning = summary.learning
    share = learning.zero_variance_groups / max(1, learning.groups)
    return Text.assemble(
        f"{learning.groups:,}", (" trained  ", QUIET),
        (percent(share), CAUTION if share > 0.5 else ""), (" with equal rewards", QUIET),
    )  # fmt: skip


def _old_logits(summary: Summary) -> Text:
    figures = summary.old_logits
    text = Text(summary.strategy)
    label = "inexact" if not summary.exact else "exact in part" if figures.fallbacks else "exact"
    text.append(f"  {label}", style=GOOD if label == "exact" else CAUTION)
    expected = figures.exact_coverage == 1.0 or not summary.exact or not summary.updates
    text.append("  verified ", style=QUIET).append(percent(figures.exact_coverage), style="" if expected else BAD)
    text.append(" of tokens  ", style=QUIET)
    text.append(f"{figures.violations:,}", style=BAD if figures.violations else "").append(" violations", style=QUIET)
    if figures.fallbacks:
        text.append(f"  {figures.fallbacks:,}", style=CAUTION).append(" tokens fell back", style=QUIET)
    if figures.audit.tokens:
        text.append(f"\n{_audit(figures.audit)}", style=QUIET)
    return text


def _audit(audit: Audit) -> str:
    """The audit in one line."""
    parts = {
        "false masks": audit.false_masks,
        "missed masks": audit.missed_masks,
        "false clips": audit.false_clips,
        "missed clips": audit.missed_clips,
    }
    shares = ", ".join(f"{name} {percent(count / audit.tokens)}" for name, count in parts.items())
    return f"audited {audit.tokens:,} tokens: {shares}; mean error {scientific(audit.mean_error)} nats"


def _staleness(summary: Summary) -> Text:
    staleness = summary.staleness
    within = staleness.max <= summary.staleness_bound
    text = Text.assemble(
        ("mean ", QUIET), f"{staleness.mean:.2f}",
        ("  max ", QUIET), (str(staleness.max), "" if within else BAD),
        (f"  bound {summary.staleness_bound}", QUIET),
    )  # fmt: skip
    total = sum(staleness.histogram.values())
    for versions, tokens in sorted(staleness.histogram.items()):
        share = tokens / total if total else 0.0
        text.append(f"\n{versions:>2} ", style=QUIET).append("█" * max(1, round(share * BAR)), style="blue")
        text.append(f" {percent(share)}")
    return text


def _discrepancy(summary: Summary) -> Text:
    figures = summary.discrepancy
    return Text.assemble(
        ("slope ", QUIET), scientific(figures.slope), (" nats per version", QUIET),
        ("  largest ", QUIET), scientific(figures.max_abs),
        ("  k3 ", QUIET), scientific(figures.k3),
    )  # fmt: skip


def _trajectories(summary: Summary) -> Text:
    ledger = summary.ledger
    text = _equation(ledger.balanced)
    text.append(
        "\n"
        + _sum(
            "leased",
            ledger.leased,
            {
                "received": ledger.received,
                "returned": ledger.returned,
                "expired": ledger.expired,
                "in flight": ledger.in_flight,
            },
        )
    )
    text.append(
        "\n"
        + _sum(
            "received",
            ledger.received,
            {
                "trained": ledger.trained,
                "discarded": sum(ledger.discarded.values()),
                "waiting": ledger.waiting,
            },
        )
    )
    if ledger.discarded:
        text.append(f"\ndiscarded {percent(ledger.discarded_share)}: {_list(ledger.discarded)}", style=QUIET)
    if summary.failures.last:
        text.append(f"\nthe newest failure: {summary.failures.last}", style=QUIET)
    return text


def _tokens(summary: Summary) -> Text:
    tokens = summary.ledger.tokens
    discarded = sum(tokens.discarded.values())
    parts = {"scored": tokens.scored, "discarded": discarded, "unscored": tokens.unscored}
    text = Text(_sum("sampled", tokens.sampled, parts))
    if tokens.discarded:
        share = discarded / tokens.sampled if tokens.sampled else 0.0
        text.append(f"\ndiscarded {percent(share)}: {_list(tokens.discarded)}", style=QUIET)
    return text


def _syncs(summary: Summary) -> Text:
    syncs = summary.syncs
    text = Text(f"{syncs.count:,}")
    if syncs.count:
        text.append("  stall ", style=QUIET).append(_quantiles(syncs.stall_seconds)).append(
            "  (p50 / p95)", style=QUIET
        )
        phases = {"pause": syncs.pause_seconds, "score": syncs.score_seconds, "load": syncs.load_seconds}
        told = "  ".join(f"{name} {_quantiles(seconds)}" for name, seconds in phases.items())
        text.append(f"\n{told}", style=QUIET)
    if syncs.fenced:
        text.append(f"\n{syncs.fenced} fenced", style=CAUTION)
    return text


def _throughput(summary: Summary) -> Text:
    figures = summary.throughput
    return Text.assemble(
        f"{figures.tokens_per_second:,.0f}", (" tokens/s trained  ", QUIET),
        f"{figures.trajectories_per_second:,.1f}", (" trajectories/s", QUIET),
    )  # fmt: skip


def _sum(whole: str, total: int, parts: Mapping[str, int]) -> str:
    """An equation of the ledger; parts that are 0 are left out."""
    terms = " + ".join(f"{number:,} {name}" for name, number in parts.items() if number) or "0"
    return f"{total:,} {whole} = {terms}"


def _equation(balanced: bool) -> Text:
    return Text("balanced", style=GOOD) if balanced else Text("NOT BALANCED", style=BAD)


def _quantiles(seconds: Quantiles) -> str:
    return f"{short(seconds.p50)} / {short(seconds.p95)}"


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items(), key=lambda item: -item[1]))
