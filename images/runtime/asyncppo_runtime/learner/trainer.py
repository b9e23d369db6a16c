"""The policy being trained: its parameters, optimizer and gradient. Owns tensors; knows nothing of the ledger, HTTP or time.

Lives on one thread. `accumulate` leaves the gradient in `.grad` and the parameters as they are, so the resident version can go on
scoring until `step`, which moves them exactly once.
"""

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from asyncppo.api.correction import OnUnavailable
from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import Precision
from asyncppo.report.measures import UpdateMetrics
from asyncppo.wire.versions import Canary, VersionRecord
from asyncppo_runtime.algorithm.advantages import estimate, zero_variance
from asyncppo_runtime.algorithm.audit import audit
from asyncppo_runtime.algorithm.batch import NO_VERSION, TokenBatch, build_batch, check_ready, micro_batches
from asyncppo_runtime.algorithm.discrepancy import correct
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.algorithm.losses import LossInputs, LossSettings, Normalizer, policy_loss
from asyncppo_runtime.algorithm.statistics import StepSums, batch_sums, loss_sums
from asyncppo_runtime.algorithm.value_loss import explained_variance, value_loss
from asyncppo_runtime.learner.auditor import Auditor, Truth
from asyncppo_runtime.learner.checkpoints import Checkpoint, CheckpointState
from asyncppo_runtime.learner.conversion import proxy_scores, trajectory_inputs, update_metrics
from asyncppo_runtime.learner.critic import Critic, Judgement
from asyncppo_runtime.learner.errors import CheckpointError, GuardError
from asyncppo_runtime.learner.extremes import Extreme, most_extreme
from asyncppo_runtime.learner.restoring import optimizer_tensors, restore_optimizer, restore_parameters
from asyncppo_runtime.learner.schedule import learning_rate
from asyncppo_runtime.learner.scoring import ScoreOutcome, score_outcome
from asyncppo_runtime.ledger.records import FALLBACK_KIND, Score, ScoreItem, StoredTrajectory
from asyncppo_runtime.old_logprobs.errors import UnscoredTokensError
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, StrategySettings, Timing
from asyncppo_runtime.old_logprobs.registry import make_strategy
from asyncppo_runtime.old_logprobs.scoring import merged_scores, score_segments
from asyncppo_runtime.old_logprobs.verify import segment_bound
from asyncppo_runtime.policy import build_model, build_tokenizer, save_pretrained, torch_dtype
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.weights.cast import published_form
from asyncppo_runtime.weights.hashing import tensors_hash

CANARY_TOKENS = 16


@dataclass(frozen=True)
class StepOutcome:
    """What the optimizer step did. gradient_norm: global, before clipping."""

    gradient_norm: float
    learning_rate: float


@dataclass(frozen=True)
class Accumulated:
    """metrics: but for gradient norm, rate and seconds. scores: anchors made on the way (proxies), to be recorded."""

    metrics: UpdateMetrics
    scores: list[Score]


@dataclass(frozen=True)
class ExportedVersion:
    """The resident parameters as they are published. published: by canonical name, in the engine's precision."""

    train_hash: str
    published_hash: str
    published: dict[str, torch.Tensor]
    canary: Canary


class Trainer:
    """Model, optimizer and the gradient of the next step.

    directory: where the old-logits strategy may keep files (the audit beside it). published: the folder of published weights.
    UserError when the model cannot be had.
    """

    def __init__(self, spec: AsyncPPOJobSpec, directory: Path | None = None, published: Path | None = None) -> None:
        self._spec = spec
        if spec.learner.threads:
            torch.set_num_threads(spec.learner.threads)
        self.model = build_model(spec, spec.seed, torch_dtype(spec.optimizer.precision))
        self._tensors = policy_tensors(self.model)
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = spec.optimizer
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=optimizer.learning_rate, betas=(0.9, 0.95), weight_decay=optimizer.weight_decay
        )
        self.critic = Critic(spec.algorithm.critic, self.model) if spec.algorithm.critic is not None else None
        if self.critic is not None:
            self._optimizer.add_param_group(
                {"params": self.critic.parameters, "lr": self.critic.spec.learning_rate, "weight_decay": 0.0}
            )
        self._reference = copy.deepcopy(self.model).eval() if spec.algorithm.kl_coefficient else None
        self._settings = LossSettings.of(spec.algorithm)
        self._forward = ForwardSettings(spec.sampling.temperature, spec.optimizer.micro_batch_tokens)
        self._sums = StepSums.zero()
        self._extreme = Extreme()
        self._started = False
        self._live: set[int] = set()
        cast = spec.rollout.engine.precision is not spec.optimizer.precision
        self.strategy = make_strategy(
            StrategySettings(spec.old_logits, spec.staleness, directory, None if cast else published)
        )
        self._auditor = self._make_auditor(directory)

    def _make_auditor(self, directory: Path | None) -> Auditor | None:
        fraction = self._spec.old_logits.audit_fraction
        if not fraction:
            return None
        beside = directory.with_name("audit") if directory is not None else None
        return Auditor(fraction, self._spec.seed, self._spec.staleness.max_versions, self.strategy, beside)

    # --- identity ---------------------------------------------------------------------------------------------------------
    def vocabulary(self) -> int:
        """Token ids the model has a row for: 0 up to this."""
        return int(self.model.get_input_embeddings().num_embeddings)

    def train_hash(self) -> str:
        """Hash of the train-side parameters: what a version *is*."""
        return tensors_hash(self._tensors)

    def export_version(self) -> ExportedVersion:
        """The resident parameters, ready to be published; copies, so training may go on."""
        published = published_form(self._tensors, self._spec.rollout.engine.precision)
        return ExportedVersion(self.train_hash(), tensors_hash(published), published, self._canary())

    @torch.no_grad()
    def _canary(self) -> Canary:
        """Seeded ids and the trainer's log-probs of them at temperature 1."""
        vocabulary = self.model.get_input_embeddings().num_embeddings
        count = min(CANARY_TOKENS, self._spec.sampling.context_length - 1)
        generator = torch.Generator().manual_seed(self._spec.seed)
        ids = torch.randint(vocabulary, (1, count), generator=generator)
        logprobs = forward_logprobs(self.model, ids, torch.tensor([count])).logprobs[0, 1:]
        full = {Precision.FLOAT32, Precision.FLOAT64}
        both_full = self._spec.optimizer.precision in full and self._spec.rollout.engine.precision in full
        return Canary(ids[0].tolist(), logprobs.double().tolist(), 1e-3 if both_full else 0.5)

    # --- one update -------------------------------------------------------------------------------------------------------
    def accumulate(self, groups: list[list[StoredTrajectory]], update: int, version: int) -> Accumulated:
        """The gradient of the batch's loss, into `.grad`; the parameters stay. `version` is the resident one (v_train).

        Groups without variance have advantage 0: unless entropy or KL terms give them a gradient of their own they take no forward,
        which changes no gradient (the normaliser counts their tokens all the same).

        A strategy that makes its anchors while the step is computed gives them back as scores, for the record.
        GuardError for a loss that is not finite; BatchError,
        NotScoredError, VersionMismatchError for a batch that must not be trained on.
        """
        algorithm = self._spec.algorithm
        batch, judgement = self.with_advantages(build_batch(trajectory_inputs(groups), version, self._log_dtype))
        if self.strategy.traits.timing is not Timing.AT_STEP:
            stand_ins = self._spec.old_logits.on_unavailable is OnUnavailable.FALLBACK
            check_ready(batch, exact=self.strategy.traits.exact, stand_ins=stand_ins)
        self._extreme = most_extreme(batch, [stored for group in groups for stored in group])
        batch = self.strategy.prepare(batch, self.model, self._forward)
        truth = self._truth(batch, groups)
        idle = zero_variance(batch.rewards, batch.group)
        sums = batch_sums(batch)
        normalizer = Normalizer.of(algorithm.normalization, batch.loss_mask)
        proxy = self.strategy.traits.timing is Timing.AT_STEP
        spared = not algorithm.entropy_coefficient and not algorithm.kl_coefficient and not proxy and judgement is None
        rows = torch.nonzero(~idle if spared else torch.ones_like(idle))[:, 0]
        scores: list[Score] = []
        self._optimizer.zero_grad(set_to_none=True)
        if rows.numel():
            for part in micro_batches(batch.select(rows), self._spec.optimizer.micro_batch_tokens):
                own, width = rows[part.rows], part.batch.token_ids.shape[1]
                judged = judgement.select(own, width) if judgement is not None else None
                known = truth.select(own, width) if truth is not None else None
                part_sums, anchor = self._backward(part.batch, normalizer, judged, known)
                sums = sums + part_sums
                if proxy:
                    scores += proxy_scores(groups, own, anchor, self.strategy.traits.kind)
        self._sums = sums
        if not math.isfinite(sums.loss + sums.value_loss):
            raise GuardError(
                f"the loss of update {update + 1} is not finite; nothing was published. {self._extreme.advice}"
            )
        explained = 0.0
        if judgement is not None:
            explained = explained_variance(judgement.values, judgement.returns, batch.loss_mask)
        return Accumulated(update_metrics(batch, idle, sums, explained), scores)

    def with_advantages(self, batch: TokenBatch) -> tuple[TokenBatch, Judgement | None]:
        """The batch with its advantages; with GAE also what the critic, as it is now, says of it."""
        algorithm = self._spec.algorithm
        if self.critic is None:
            made = estimate(algorithm.advantage, batch.rewards, batch.group, batch.loss_mask)
            return batch.with_advantages(made), None
        judgement = self.critic.judge(self.model, batch, self._spec.optimizer.micro_batch_tokens)
        return batch.with_advantages(judgement.advantages), judgement

    def _truth(self, batch: TokenBatch, groups: list[list[StoredTrajectory]]) -> Truth | None:
        if self._auditor is None:
            return None
        leases = [stored.lease_id for group in groups for stored in group]
        return self._auditor.truth(batch, leases, self.model, self._forward)

    def _backward(
        self, batch: TokenBatch, normalizer: Normalizer, judgement: Judgement | None, truth: Truth | None
    ) -> tuple[StepSums, torch.Tensor]:
        algorithm = self._spec.algorithm
        policy = forward_logprobs(
            self.model,
            batch.token_ids,
            batch.lengths,
            self._forward.temperature,
            with_entropy=True,
            mask=batch.loss_mask,
            value_head=self.critic.head if self.critic is not None else None,
        )
        anchor = self.strategy.proximal(batch, policy.logprobs)
        correction = correct(algorithm.discrepancy, anchor, batch.behavior_logprobs, batch.loss_mask)
        inputs = LossInputs(
            policy_logprobs=policy.logprobs,
            anchor_logprobs=anchor,
            advantages=batch.advantages,
            loss_mask=batch.loss_mask,
            correction=correction,
            entropy=policy.entropy,
            reference_logprobs=self._reference_logprobs(batch),
        )
        output = policy_loss(self._settings, inputs, normalizer)
        loss, sums = output.loss, StepSums()
        if self.critic is not None and judgement is not None and policy.values is not None:
            value = value_loss(
                policy.values,
                judgement.values,
                judgement.returns,
                batch.loss_mask,
                normalizer,
                self.critic.spec.value_clip,
            )
            loss = loss + self.critic.spec.value_coefficient * value.loss
            sums = StepSums(
                value_loss=float(value.loss.detach()),
                value_squared_error=value.squared_error,
                value_clipped=value.clipped,
            )
        torch.autograd.backward(loss)
        if truth is not None:
            sums = sums + StepSums(
                audit=audit(
                    self._settings,
                    algorithm.discrepancy,
                    anchor,
                    truth.logprobs,
                    batch.behavior_logprobs,
                    policy.logprobs.detach(),
                    batch.advantages,
                    truth.audited,
                )
            )
        return sums + loss_sums(batch, self._settings, anchor, policy.logprobs, correction, output), anchor

    @torch.no_grad()
    def _reference_logprobs(self, batch: TokenBatch) -> torch.Tensor | None:
        if self._reference is None:
            return None
        return forward_logprobs(
            self._reference, batch.token_ids, batch.lengths, self._forward.temperature, mask=batch.loss_mask
        ).logprobs

    def step(self, update: int, unscored: Collection[int]) -> StepOutcome:
        """Clip the gradient and move the parameters, once. unscored: versions that still have unscored tokens.

        GuardError when the gradient is not finite, or unscored tokens need the parameters as they are: nothing is moved then.
        """
        rate = learning_rate(self._spec.optimizer, update, self._spec.algorithm.updates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        clip = self._spec.optimizer.gradient_clip
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, clip))
        norms = {"gradient": norm}
        if self.critic is not None:
            critic_rate = rate / self._spec.optimizer.learning_rate * self.critic.spec.learning_rate
            self._optimizer.param_groups[-1]["lr"] = critic_rate
            # of its own, so that the critic's errors do not shorten the policy's step
            norms["critic's gradient"] = float(torch.nn.utils.clip_grad_norm_(self.critic.parameters, clip))
        for what, found in norms.items():
            if not math.isfinite(found):
                raise GuardError(
                    f"the {what} of update {update + 1} is not finite (norm {found}); nothing was published. "
                    f"{self._extreme.advice}"
                )
        try:
            self.strategy.before_step(self._tensors, unscored)
        except UnscoredTokensError as error:
            raise GuardError(str(error)) from error
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.strategy.after_step(self._tensors, self._sums)
        return StepOutcome(norm, rate)

    # --- old log-probs ------------------------------------------------------------------------------------------------------
    def score(self, items: list[ScoreItem], records: dict[int, VersionRecord | None]) -> ScoreOutcome:
        """Old log-probs of `items`, each under its own version as far as the strategy can lend it, each checked against its label."""
        spec = self._spec
        scoring = score_segments(
            items,
            lambda item: item.key.lease_id,
            records,
            lambda version: self.strategy.hold(version, self.model),
            self._forward,
            segment_bound(spec.old_logits, spec.optimizer.precision, spec.rollout.engine.precision),
        )
        return score_outcome(scoring, self.strategy.traits.kind)

    def stand_in(self, items: list[ScoreItem]) -> list[Score]:
        """Log-probs under the parameters as they are now, for segments whose exact ones cannot be had; labelled as such."""
        made, _ = merged_scores(items, lambda item: (item.key.lease_id, item.version), self.model, self._forward)
        return [Score(item.key, old.numpy(), NO_VERSION, "", FALLBACK_KIND) for item, old in made]

    def published(self, version: int) -> None:
        """The resident parameters are those of `version` from now on."""
        self._start(version)
        train_hash = self.train_hash()
        self.strategy.published(version, self._tensors, train_hash)
        if self._auditor is not None:
            self._auditor.published(version, self._tensors, train_hash)
        self._live.add(version)

    def _start(self, version: int) -> None:
        if not self._started:
            self.strategy.start(version, self._tensors)
            self._started = True

    def adopt(self, train_hashes: dict[int, str]) -> None:
        """After a restart: versions that tokens may still be alive of."""
        self.strategy.adopt(train_hashes)
        if self._auditor is not None:
            self._auditor.adopt(train_hashes)
        self._live |= train_hashes.keys()

    def retire(self, needed: set[int]) -> None:
        """Versions not in `needed` have no live token any more."""
        for version in sorted(self._live - needed):
            self.strategy.retired(version)
        self._live &= needed

    # --- to and from disk -------------------------------------------------------------------------------------------------
    def checkpoint(self, version: int, update: int, fingerprint: str) -> Checkpoint:
        """Everything to go on from here; copies."""
        self._start(version)
        return Checkpoint(
            CheckpointState(version, update, self.train_hash(), fingerprint),
            parameters={name: tensor.detach().clone() for name, tensor in self._tensors.items()},
            optimizer=optimizer_tensors(self._optimizer, len(self._optimized)),
            strategy=self.strategy.state(),
            critic=self.critic.tensors() if self.critic is not None else {},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's parameters and optimizer state. CheckpointError when they do not fit the manifest's model."""
        restore_parameters(self._tensors, checkpoint)
        restore_optimizer(self._optimizer, self._optimized, checkpoint)
        if self.critic is not None:
            self.critic.restore(checkpoint.critic, checkpoint.state.version)
        if checkpoint.strategy:
            self.strategy.restore(checkpoint.strategy)
            self._started = True
        if self.train_hash() != checkpoint.state.train_hash:
            raise CheckpointError(
                f"the weights of checkpoint {checkpoint.state.version} do not hash to what its state.json says; "
                "remove its folder to resume from an older one, or start a new run"
            )

    def export_model(self, directory: Path) -> None:
        """The trained model in Hugging Face format."""
        save_pretrained(self.model, build_tokenizer(self._spec), directory)

    @property
    def _optimized(self) -> list[torch.nn.Parameter]:
        """Everything the optimizer moves, in the order of its state."""
        return [*self._trained, *(self.critic.parameters if self.critic is not None else [])]

    @property
    def _log_dtype(self) -> torch.dtype:
        return torch.float64 if self._spec.optimizer.precision is Precision.FLOAT64 else torch.float32
