"""What verified scoring means for the ledger: scores to record, segments to discard and why, or a reason to stop.

Owns `oldLogits.onUnavailable`. Does not own the scoring nor its checks (`asyncppo_runtime.old_logprobs.scoring`).
"""

from dataclasses import dataclass, field

from asyncppo.api.correction import OnUnavailable
from asyncppo_runtime.ledger.records import Score, ScoreItem, SegmentKey
from asyncppo_runtime.old_logprobs.scoring import Scoring

UNAVAILABLE = "version_unavailable"


@dataclass(frozen=True)
class ScoreOutcome:
    """scores: to be recorded. discarded: reason → segments. why: reason → the first cause, for the log.

    unavailable: not empty when exact values cannot be had and the manifest says to fail.
    """

    scores: list[Score] = field(default_factory=list)
    discarded: dict[str, list[SegmentKey]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    unavailable: str = ""


def score_outcome(scoring: Scoring[ScoreItem], kind: str, on_unavailable: OnUnavailable) -> ScoreOutcome:
    """Sort the result of a scoring pass. kind: the strategy's word for how a score was made."""
    outcome = ScoreOutcome(
        scores=[
            Score(scored.segment.key, scored.old_logprobs.numpy(), scored.version, scored.train_hash, kind)
            for scored in scoring.scored
        ],
        unavailable="; ".join(scoring.why_unavailable.values()) if on_unavailable is OnUnavailable.FAIL else "",
    )
    for refused in scoring.refused:
        assert refused.verdict.reason is not None  # a refusal has one
        reason = refused.verdict.reason.value
        outcome.discarded.setdefault(reason, []).append(refused.segment.key)
        outcome.why.setdefault(reason, f"lease {refused.segment.key.lease_id}: {refused.verdict.message}")
    if scoring.unavailable and on_unavailable is OnUnavailable.DISCARD:
        outcome.discarded[UNAVAILABLE] = [item.key for item in scoring.unavailable]
        outcome.why[UNAVAILABLE] = "; ".join(scoring.why_unavailable.values())
    return outcome
