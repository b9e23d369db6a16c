"""The model a worker scores with, and which version it holds: known by the hash of its own parameters, not by what it was told.

Owns loading and the forward. Does not own pulling (`asyncppo_runtime.weights.pull`), nor what is scored.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.old_logits import SegmentWork
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.old_logprobs.errors import HeldWeightsError
from asyncppo_runtime.old_logprobs.interface import ForwardSettings
from asyncppo_runtime.old_logprobs.scoring import merged_scores
from asyncppo_runtime.policy import build_architecture, policy_tensors, torch_dtype
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import load_tensors

NOTHING = -1


class HeldModel:
    """One train-side model in the learner's precision. version: what it holds, -1 for nothing; train_hash: of its parameters."""

    def __init__(self, spec: AsyncPPOJobSpec) -> None:
        if spec.old_logit.threads:
            torch.set_num_threads(spec.old_logit.threads)
        self._model = build_architecture(spec, torch_dtype(spec.optimizer.precision))
        self._tensors = policy_tensors(self._model)
        self._forward = ForwardSettings(spec.sampling.temperature, spec.optimizer.micro_batch_tokens)
        self.version = NOTHING
        self.train_hash = ""

    @torch.no_grad()
    def load(self, path: Path, record: VersionRecord) -> None:
        """Take over the file's tensors. HeldWeightsError when they do not fit, or are not `record`'s: nothing is held then.

        Raises WeightsError when the file cannot be read.
        """
        tensors = load_tensors(path)
        self.version, self.train_hash = NOTHING, ""
        if tensors.keys() != self._tensors.keys():
            raise HeldWeightsError(f"the file of version {record.version} holds the tensors of another model")
        for name, tensor in self._tensors.items():
            if tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
                raise HeldWeightsError(
                    f"{name} of version {record.version} is {tensors[name].dtype} {tuple(tensors[name].shape)}, the model's is "
                    f"{tensor.dtype} {tuple(tensor.shape)}"
                )
            tensor.copy_(tensors[name])
        found = tensors_hash(self._tensors)
        if found != record.train_hash:
            raise HeldWeightsError(
                f"what was loaded as version {record.version} hashes to {found[:12]}…, the version is {record.train_hash[:12]}…"
            )
        self.version, self.train_hash = record.version, found

    def score(self, segments: Sequence[SegmentWork]) -> list[tuple[SegmentWork, Tensor]]:
        """Each segment with its log-probs, float [end - start], under what is held. Blocks: call it on a thread."""
        made, _ = merged_scores(segments, lambda segment: segment.lease_id, self._model, self._forward)
        return made
