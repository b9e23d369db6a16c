"""A diagnosis and a job as a person reads them in a terminal. Plain text, so that it goes anywhere.

Owns the words and their order. Does not own a judgement (`diagnosis.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from asyncppo.kubectl.diagnosis import Diagnosis, Finding
from asyncppo.report.measures import UpdateMetrics
from asyncppo.report.wording import duration, percent

Object = Mapping[str, Any]

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 72
TABLE = (
    ("NAME", lambda job: job["metadata"]["name"]),
    ("PHASE", lambda job: _at(job, "phase")),
    ("PROGRESS", lambda job: _at(job, "progress", "summary")),
    ("REWARD", lambda job: _number(_at(job, "reward", "newest"))),
    ("STALENESS", lambda job: _at(job, "staleness", "summary")),
    ("EXACT", lambda job: _at(job, "oldLogits", "summary")),
    ("ROLLOUTS", lambda job: _at(job, "rollouts", "summary")),
    ("MESSAGE", lambda job: _at(job, "message")),
)


def table(jobs: Sequence[Object]) -> str:
    """One line per job."""
    rows = [[title for title, _ in TABLE], *([str(value(job)) for _, value in TABLE] for job in jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TABLE))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def status(job: Object, diagnosis: Diagnosis, events: Sequence[Object] = ()) -> str:
    """The whole screen: how it is, how far, what is wrong, why it is slow, what happened last."""
    rows = [
        ("job", f"{diagnosis.namespace}/{diagnosis.name}"),
        ("phase", f"{diagnosis.phase}: {diagnosis.message}" if diagnosis.message else diagnosis.phase),
        ("progress", _progress(job)),
        ("reward", _reward(job)),
        ("staleness", _at(job, "staleness", "summary") and f"{_at(job, 'staleness', 'summary')}, bound {_at(job, 'staleness', 'bound')}"),
        ("old logits", _old_logits(job)),
        ("chosen", _at(job, "strategyReason")),
        ("rollouts", _at(job, "rollouts", "summary") and f"{_at(job, 'rollouts', 'summary')} ready"),
        ("syncs", _syncs(job)),
        ("ledger", _ledger(job)),
        *(("note", str(note)) for note in _at(job, "notes") or ()),
        ("healthy", "yes" if diagnosis.healthy else "no"),
    ]  # fmt: skip
    lines = [f"{name:<11} {text}" for name, text in rows if text]
    lines += [line for finding in diagnosis.troubles for line in _finding(finding)]
    if diagnosis.phase == "Running":
        lines.append(f"{'slow':<11} {'why:' if diagnosis.slow else 'nothing stands out'}")
        lines += [line for finding in diagnosis.slow for line in _finding(finding)]
    if events:
        lines += ["", "events"]
        lines += [
            f"  {e.get('lastTimestamp') or '':<22}{e.get('reason') or '':<18}{e.get('message') or ''}" for e in events
        ]
    return "\n".join(lines)


def curve(title: str, values: Sequence[float], width: int = WIDTH) -> str:
    """A line of bars: the mean of each stretch, with the first, last and extreme values named."""
    if not values:
        return f"{title:<12} nothing yet"
    columns = min(width, len(values))
    stretches = [values[i * len(values) // columns : (i + 1) * len(values) // columns] for i in range(columns)]
    means = [sum(stretch) / len(stretch) for stretch in stretches]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    bars = "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)
    return f"{title:<12} {bars}  {means[0]:.3g} → {means[-1]:.3g}  (from {low:.3g} to {high:.3g})"


def plot(updates: Sequence[UpdateMetrics]) -> str:
    """What matters over the updates so far."""
    return "\n".join(
        (
            f"{len(updates)} updates",
            curve("reward", [u.reward for u in updates]),
            curve("staleness", [u.staleness.mean for u in updates]),
            curve("entropy", [u.entropy for u in updates]),
            curve("clipped", [u.clip_fraction for u in updates]),
            curve("masked", [u.mask_fraction for u in updates]),
            curve("coverage", [u.exact_coverage for u in updates]),
        )
    )


def _finding(finding: Finding) -> list[str]:
    share = f"{percent(finding.share)} of the time: " if finding.share is not None else ""
    lines = [f"  - {share}{finding.what}"]
    return [*lines, f"    {finding.advice}"] if finding.advice else lines


def _progress(job: Object) -> str:
    summary = _at(job, "progress", "summary")
    if not summary:
        return ""
    eta = _at(job, "progress", "etaSeconds")
    left = f", about {duration(float(eta))} left" if eta and _at(job, "phase") == "Running" else ""
    return f"{summary} updates ({_at(job, 'progress', 'percent')} %){left}"


def _reward(job: Object) -> str:
    if _at(job, "reward", "newest") == "":
        return ""
    parts = [f"{key} {_number(_at(job, 'reward', key))}" for key in ("newest", "first", "last", "best")]
    return ", ".join(parts)


def _old_logits(job: Object) -> str:
    coverage = _at(job, "oldLogits", "exactCoverage")
    if coverage == "":
        return str(_at(job, "strategy"))
    if not _at(job, "oldLogits", "exact"):
        return f"{_at(job, 'strategy')}, approximate by design"
    return f"{_at(job, 'strategy')}, exact for {percent(float(coverage))} of the tokens, {_at(job, 'oldLogits', 'violations')} violations"


def _syncs(job: Object) -> str:
    count = _at(job, "syncs", "count")
    if count == "":
        return ""
    return f"{count}, {_at(job, 'syncs', 'fenced')} rollouts fenced, stall p95 {_number(_at(job, 'syncs', 'stallSecondsP95'))} s"


def _ledger(job: Object) -> str:
    if _at(job, "ledger", "trained") == "":
        return ""
    balanced = "balanced" if _at(job, "ledger", "balanced") else "IMBALANCED"
    parts = [f"{key} {_at(job, 'ledger', key)}" for key in ("trained", "waiting", "inFlight", "discarded")]
    share, reason = _at(job, "ledger", "discardedShare"), _at(job, "ledger", "discardedReason")
    lost = f" ({percent(float(share))}, mostly {reason})" if share else ""
    return f"{balanced}; trajectories {', '.join(parts)}{lost}"


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _at(job: Object, *path: str) -> Any:
    """The status' value at a path; an empty text where there is none."""
    node: Any = job.get("status") or {}
    for key in path:
        node = node.get(key, "") if isinstance(node, Mapping) else ""
    return node
