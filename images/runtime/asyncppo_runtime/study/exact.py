"""What the exact old log-probs are and what a strategy decides otherwise: measured beside the training, on every trained token.

Owns a ring of every living version on a model of its own, so that measuring touches neither the trainer's weights nor its strategy.
Does not own the comparison of decisions (`algorithm.audit`).
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.algorithm.audit import AuditSums, audit
from asyncppo_runtime.algorithm.batch import build_batch, micro_batches
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.algorithm.losses import LossSettings
from asyncppo_runtime.learner.conversion import trajectory_inputs
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import Score, ScoreItem, StoredTrajectory
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, StrategySettings
from asyncppo_runtime.old_logprobs.ring import MemoryMedium
from asyncppo_runtime.old_logprobs.scoring import score_segments
from asyncppo_runtime.old_logprobs.snapshot import Snapshot
from asyncppo_runtime.old_logprobs.verify import segment_bound
from asyncppo_runtime.policy.state import policy_tensors

KIND = "exact_dedicated"


class ExactScorer:
    """Scores segments under any living version; also the one worker of strategy Dedicated."""

    def __init__(self, spec: AsyncPPOJobSpec, trainer: Trainer) -> None:
        self._spec = spec
        self._model = copy.deepcopy(trainer.model)
        self._forward = ForwardSettings(spec.sampling.temperature, spec.optimizer.micro_batch_tokens)
        self._ring = Snapshot(StrategySettings(spec.old_logits, spec.staleness), MemoryMedium())
        self._settings = LossSettings.of(spec.algorithm)
        self._live: set[int] = set()

    @property
    def bytes_held(self) -> int:
        """Of all versions kept."""
        return self._ring.bytes_held

    def published(self, record: VersionRecord, trainer: Trainer) -> None:
        """Keep the trainer's resident version."""
        self._ring.published(record.version, policy_tensors(trainer.model), record.train_hash)
        self._live.add(record.version)

    def retire(self, needed: set[int]) -> None:
        """What is not needed may go."""
        for version in sorted(self._live - needed):
            self._ring.retired(version)
        self._live &= needed

    def score(self, items: Sequence[ScoreItem], records: Mapping[int, VersionRecord]) -> list[Score]:
        """Each under its own version, verified. A refusal here would be a mistake of this program: RuntimeError."""
        spec = self._spec
        found = score_segments(
            list(items),
            lambda item: item.key.lease_id,
            records,
            lambda version: self._ring.hold(version, self._model),
            self._forward,
            segment_bound(spec.old_logits, spec.optimizer.precision, spec.rollout.engine.precision),
        )
        if found.refused or found.unavailable:
            why = [refused.verdict.message for refused in found.refused] + list(found.why_unavailable.values())
            raise RuntimeError(f"{len(why)} segments of the study have no exact old log-prob: {why[0]}")
        return [Score(s.segment.key, s.old_logprobs.numpy(), s.version, s.train_hash, KIND) for s in found.scored]

    def compare(
        self, trainer: Trainer, groups: list[list[StoredTrajectory]], exact: Sequence[Score], version: int
    ) -> AuditSums:
        """The decisions of the trainer's strategy on this batch against the exact ones. Call before the step; moves nothing."""
        spec = self._spec
        dtype = torch.float64 if next(self._model.parameters()).dtype == torch.float64 else torch.float32
        batch, _ = trainer.with_advantages(build_batch(trajectory_inputs(groups), version, dtype))
        batch = trainer.strategy.prepare(batch, trainer.model, self._forward)
        truth = _spread(batch.old_logprobs, groups, exact)
        sums = AuditSums()
        for part in micro_batches(batch, self._forward.token_budget):
            micro = part.batch
            with torch.no_grad():
                policy = forward_logprobs(
                    trainer.model, micro.token_ids, micro.lengths, self._forward.temperature, mask=micro.loss_mask
                ).logprobs
            width = micro.token_ids.shape[1]
            sums = sums + audit(
                self._settings,
                spec.algorithm.discrepancy,
                trainer.strategy.proximal(micro, policy),
                truth[part.rows, :width],
                micro.behavior_logprobs,
                policy,
                micro.advantages,
                micro.loss_mask,
            )
        return sums


def _spread(like: Tensor, groups: list[list[StoredTrajectory]], scores: Sequence[Score]) -> Tensor:
    """[B, T] like the batch: exact values on the tokens of segments in the loss, 0 elsewhere."""
    by_key = {score.key: score for score in scores}
    out = torch.zeros_like(like)
    for row, stored in enumerate(stored for group in groups for stored in group):
        for segment in stored.segments:
            if segment.key in by_key:
                values = torch.tensor(by_key[segment.key].old_logprobs.tolist(), dtype=like.dtype)
                out[row, segment.start : segment.end] = values
    return out
