"""Builders of updates, summaries and trajectories for the report's tests. Owns nothing else."""

from pathlib import Path
from typing import Any

import msgspec

from asyncppo.report.measures import (
    Discrepancy,
    LedgerTokens,
    LedgerTotals,
    OldLogits,
    Quantiles,
    Reward,
    Staleness,
    Summary,
    Syncs,
    Throughput,
    UpdateMetrics,
)
from asyncppo.report.trajectories import RunView, SegmentView, TokenView, TrajectoryLine, TrajectoryView


def update(number: int, reward: float = 0.5, **changes: Any) -> UpdateMetrics:
    """One update."""
    figures: dict[str, Any] = {"update": number, "version": number, "at_seconds": number * 0.5, "reward": reward}
    return UpdateMetrics(**(figures | changes))


def recorded(path: Path, updates: list[UpdateMetrics]) -> Path:
    """A metrics.jsonl."""
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in updates))
    return path


def summary(**changes: Any) -> Summary:
    """A complete run."""
    figures: dict[str, Any] = {
        "job": "guess",
        "phase": "Complete",
        "strategy": "Interruption",
        "exact": True,
        "updates": 60,
        "versions": 61,
        "seed": 0,
        "reward": Reward(first=0.06, last=0.74, best=0.75),
        "old_logits": OldLogits(strategy="Interruption", exact=True, exact_coverage=1.0),
        "staleness": Staleness(mean=0.84, max=2, histogram={0: 120, 1: 200, 2: 60}),
        "staleness_bound": 2,
        "discrepancy": Discrepancy(
            k3=3e-14, max_abs=2.1e-6, slope=-1e-9, by_staleness={0: (120, 1.2e-7), 1: (200, 1.25e-7), 2: (60, 1.19e-7)}
        ),
        "ledger": LedgerTotals(
            leased=110, received=100, returned=4, expired=1, in_flight=5, trained=90, waiting=4,
            discarded={"zero_variance": 6},
            tokens=LedgerTokens(sampled=400, scored=390, discarded={"returned": 10}, trained=380),
        ),
        "syncs": Syncs(count=60, pause_seconds=Quantiles(p50=0.005, p95=0.02, max=0.1)),
        "throughput": Throughput(tokens_per_second=3045.0, trajectories_per_second=203.0),
        "wall_seconds": 151.0,
        "time": {
            "learner": {"Training": 80.0, "Batch": 40.0, "Sync": 20.0},
            "rollout-0": {"sampling": 100.0, "environment": 20.0, "paused": 11.0, "idle": 20.0},
        },
    }  # fmt: skip
    return Summary(**(figures | changes))


def trajectory(**changes: Any) -> TrajectoryView:
    """A guess-number trajectory over two versions: prompt, two guesses, the answer between them."""
    tokens = [
        TokenView(id=1, text="<bos>", role="environment"),
        TokenView(
            id=10, text="7", role="model", segment=0, version=3, behavior_logprob=-1.25, old_logprob=-1.25, mask=True
        ),
        TokenView(id=20, text=">", role="environment"),
        TokenView(
            id=14, text="11", role="model", segment=1, version=4, behavior_logprob=-0.5, old_logprob=-0.75, mask=False
        ),
        TokenView(id=21, text="=", role="environment"),
    ]
    segments = [
        SegmentView(
            index=0, start=1, end=2, version=3, weights_hash="aaaa", state="Scored", scorer_version=3,
            scorer_hash="cccc", kind="exact_interrupt",
        ),
        SegmentView(index=1, start=3, end=4, version=4, weights_hash="bbbb", state="Unscored"),
    ]  # fmt: skip
    figures: dict[str, Any] = {
        "line": TrajectoryLine(
            id=42, group=6, member="rollout-1", fate="Trained", reward=0.9, end_reason="done", tokens=2,
            versions=(3, 4), staleness=2,
        ),
        "job": "guess", "attempt": 1, "turns": 2, "trained_version": 6, "text": "<bos> 7 > 11 =",
        "runs": [
            RunView(role="environment", text="<bos>"), RunView(role="model", text=" 7"), RunView(role="environment", text=" >"),
            RunView(role="model", text=" 11"), RunView(role="environment", text=" ="),
        ],
        "tokens": tokens, "segments": segments,
    }  # fmt: skip
    return TrajectoryView(**(figures | changes))
