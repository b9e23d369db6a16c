"""The policy being trained: its parameters, optimizer and gradient. Owns tensors; knows nothing of the ledger, HTTP or time.

Lives on one thread. `accumulate` leaves the gradient in `.grad` and the parameters as they are, so the resident version can go on
scoring until `step`, which moves them exactly once.
"""

import copy
import math
from dataclasses import dataclass

import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import Precision
from asyncppo.report.measures import UpdateMetrics
from asyncppo.wire.versions import Canary
from asyncppo_runtime.algorithm.advantages import estimate, zero_variance
from asyncppo_runtime.algorithm.batch import TokenBatch, build_batch, check_ready, micro_batches
from asyncppo_runtime.algorithm.discrepancy import correct
from asyncppo_runtime.algorithm.logprobs import forward_logprobs
from asyncppo_runtime.algorithm.losses import LossInputs, LossSettings, Normalizer, policy_loss
from asyncppo_runtime.learner.checkpoints import Checkpoint
from asyncppo_runtime.learner.errors import GuardError
from asyncppo_runtime.learner.inputs import trajectory_inputs
from asyncppo_runtime.learner.schedule import learning_rate
from asyncppo_runtime.ledger.records import StoredTrajectory
from asyncppo_runtime.policy import build_model, torch_dtype
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
class ExportedVersion:
    """The resident parameters as they are published. published: by canonical name, in the engine's precision."""

    train_hash: str
    published_hash: str
    published: dict[str, torch.Tensor]
    canary: Canary


class Trainer:
    """Model, optimizer and the gradient of the next step.

    seed draws the built-in model's initial weights. UserError when the model cannot be had.
    """

    def __init__(self, spec: AsyncPPOJobSpec) -> None:
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
        self._reference = copy.deepcopy(self.model).eval() if spec.algorithm.kl_coefficient else None
        self._settings = LossSettings.of(spec.algorithm)

    # --- identity ---------------------------------------------------------------------------------------------------------
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
    def accumulate(self, groups: list[list[StoredTrajectory]], update: int, version: int, exact: bool) -> UpdateMetrics:
        """The gradient of the batch's loss, into `.grad`. Zero-variance groups have advantage 0 and take no forward.

        Returns the update's metrics but for gradient norm, rate and seconds. GuardError for a loss that is not finite.
        """
        algorithm = self._spec.algorithm
        batch = build_batch(trajectory_inputs(groups), version, self._log_dtype)
        batch = batch.with_advantages(estimate(algorithm.advantage, batch.rewards, batch.group, batch.loss_mask))
        check_ready(batch, exact)
        idle = zero_variance(batch.rewards, batch.group)
        sums = StepSums.zero()
        normalizer = Normalizer.of(algorithm.normalization, batch.loss_mask)
        self._optimizer.zero_grad(set_to_none=True)
        for part in self._parts(batch, idle):
            sums = sums + self._backward(part, normalizer)
        return sums.metrics(batch, idle, update)

    def step(self, update: int) -> StepOutcome:
        """Clip the gradient and move the parameters. GuardError when the gradient is not finite: nothing is moved then."""
        rate = learning_rate(self._spec.optimizer, update, self._spec.algorithm.updates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, self._spec.optimizer.gradient_clip))
        if not math.isfinite(norm):
            raise GuardError(f"the gradient of update {update + 1} is not finite (norm {norm}); nothing was published")
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return StepOutcome(norm, rate)
