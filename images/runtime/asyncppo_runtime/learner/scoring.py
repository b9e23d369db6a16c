"""What verified scoring means for the ledger: scores to record, segments to discard and why, segments that nobody can score exactly.

Owns the sorting. Does not own the scoring nor its checks (`asyncppo_runtime.old_logprobs.scoring`), nor `oldLogits.onUnavailable`
(`training`).
"""

from dataclasses import dataclass, field

from asyncppo_runtime.ledger.records import Score, ScoreItem, SegmentKey
from asyncppo_runtime.old_logprobs.scoring import Scoring
from asyncppo_runtime.old_logprobs.verify import Verdict

UNAVAILABLE = "version_unavailable"


@dataclass(frozen=True)
class ScoreOutcome:
    """scores: to be recorded. discarded: reason → segments. why: reason → the first cause, for the log.

    unavailable: segments whose exact values cannot be had, and why_unavailable.
    """

    scores: list[Score] = field(default_factory=list)
    discarded: dict[str, list[SegmentKey]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    unavailable: list[SegmentKey] = field(default_factory=list)
    why_unavailable: str = ""

    def refuse(self, key: SegmentKey, verdict: Verdict) -> None:
        """The segment gets no score, for what the verdict says."""
        assert verdict.reason is not None  # a refusal has one
        reason = verdict.reason.value
        self.discarded.setdefault(reason, []).append(key)
        self.why.setdefault(reason, f"lease {key.lease_id}: {verdict.message}")


def score_outcome(scoring: Scoring[ScoreItem], kind: str) -> ScoreOutcome:
    """Sort the result of a scoring pass. kind: the strategy's word for how a score was made."""
    outcome = ScoreOutcome(
        scores=[
            Score(scored.segment.key, scored.old_logprobs.numpy(), scored.version, scored.train_hash, kind)
            for scored in scoring.scored
        ],
        unavailable=[item.key for item in scoring.unavailable],
        why_unavailable="; ".join(scoring.why_unavailable.values()),
    )
    for refused in scoring.refused:
        outcome.refuse(refused.segment.key, refused.verdict)
    return outcome
