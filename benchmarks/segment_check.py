"""What the check of a segment's values sees and what it takes for an error: false alarms, and neighbouring versions missed.

    python -m benchmarks.segment_check                                   the built-in model, random weights
    python -m benchmarks.segment_check --model runs/guess-number/model   a trained one (a folder or a .gguf file)

Per pair of precisions and learning rate: the product's trainer takes three optimizer steps on what the torch engine sampled, with random
rewards, which makes versions 1, 2, 3. The engine samples under version 2; the product's scorer gives the old log-probs of those tokens
under 2 (honest), 1 and 3 (a wrong label, one version off). The tokens are cut into segments of 1 to 256 and each is judged by
`verify_scores` with the job's default bound. Prints a table in Markdown.
"""

import argparse
import asyncio
import itertools
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import Precision
from asyncppo.wire.experience import Trajectory
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.algorithm.batch import NO_VERSION
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import LeaseState, SegmentKey, SegmentState, StoredSegment, StoredTrajectory
from asyncppo_runtime.old_logprobs.exact_scorer import ScoreRequest, score
from asyncppo_runtime.old_logprobs.interface import ForwardSettings, own_copy
from asyncppo_runtime.old_logprobs.parameters import borrowed
from asyncppo_runtime.policy.state import policy_tensors
from asyncppo_runtime.rollout.engines.interface import GenerateRequest
from asyncppo_runtime.rollout.engines.torch_engine import TorchEngine
from asyncppo_runtime.weights.store import WeightStore

PRECISIONS = (
    (Precision.FLOAT32, Precision.FLOAT32),
    (Precision.FLOAT32, Precision.BFLOAT16),
    (Precision.BFLOAT16, Precision.BFLOAT16),
)
RATES = (1e-6, 1e-5, 1e-4, 1e-3)
SEGMENTS = (1, 4, 16, 64, 256)
PROMPT = 4


@dataclass(frozen=True)
class Sampled:
    """One answer of the engine: prompt and output ids, behavior log-probs of the output."""

    token_ids: list[int]
    logprobs: list[float]


def spec_of(
    model: dict[str, object], rate: float, learner: Precision, engine: Precision, tokens: int
) -> AsyncPPOJobSpec:
    """A job whose only purpose is its model, its precisions and its rate."""
    return AsyncPPOJobSpec.model_validate(
        {
            "model": model,
            "environment": {"type": "GuessNumber"},
            "algorithm": {"updates": 3, "advantage": "REINFORCEPlusPlus"},
            "optimizer": {"learningRate": rate, "precision": learner.value, "microBatchTokens": 4096},
            "oldLogits": {"strategy": "Recompute"},
            "sampling": {"maxTokens": tokens, "contextLength": PROMPT + tokens},
            "rollout": {"concurrency": 32, "engine": {"precision": engine.value, "kvCacheBytes": 2**31}},
        }
    )


async def sample(engine: TorchEngine, count: int, tokens: int, seed: int) -> list[Sampled]:
    """`count` answers of `tokens` tokens each, to random prompts; nothing stops them early."""
    words = engine._model.get_input_embeddings().num_embeddings
    source = random.Random(seed)
    prompts = [[source.randrange(words) for _ in range(PROMPT)] for _ in range(count)]
    await engine.resume()
    answers = await asyncio.gather(
        *(
            engine.generate(
                GenerateRequest(
                    session=str(i), token_ids=prompt, max_tokens=tokens, stop_token_ids=[], seed=seed * count + i
                )
            )
            for i, prompt in enumerate(prompts)
        )
    )
    await engine.pause()
    for i in range(count):
        engine.forget(str(i))
    return [Sampled(p + a.token_ids, a.logprobs) for p, a in zip(prompts, answers, strict=True)]


async def load(engine: TorchEngine, trainer: Trainer, version: int, store: WeightStore) -> None:
    """Publish the trainer's parameters as `version` and load them into the engine, as a job does."""
    made = trainer.export_version()
    stored = store.publish(version, made.published)
    record = VersionRecord(
        version=version,
        parent=version - 1,
        lineage=0,
        train_hash=made.train_hash,
        published_hash=made.published_hash,
        file_size=stored.size,
        file_sha256=stored.sha256,
    )
    await engine.load(store.path(version), record)


def groups_of(samples: list[Sampled], seed: int) -> list[list[StoredTrajectory]]:
    """What the engine sampled as a batch with random rewards."""
    source = random.Random(seed)
    made = []
    for lease, one in enumerate(samples):
        start, end = len(one.token_ids) - len(one.logprobs), len(one.token_ids)
        segment = StoredSegment(
            SegmentKey(lease, 0, str(lease)), start, end, 0, "", SegmentState.UNSCORED, "", np.array(one.logprobs), None,
            NO_VERSION, "", "",
        )  # fmt: skip
        reward = source.gauss(0.0, 1.0)
        sent = Trajectory(
            lease_id=lease, group_id=lease, token_ids=one.token_ids, segments=[], finished=True, reward=reward
        )
        made.append([StoredTrajectory(
            lease, lease, 0, 0, "", LeaseState.RECEIVED, None, "", reward, "done", end, NO_VERSION, sent, [segment]
        )])  # fmt: skip
    return made


async def differences(spec: AsyncPPOJobSpec, count: int, tokens: int, seed: int) -> dict[str, np.ndarray]:
    """|old - behavior| [count, tokens] of what version 2 sampled, under the label of version 1, 2 (honest) and 3."""
    trainer, engine = Trainer(spec), TorchEngine(spec)
    await engine.start()
    with tempfile.TemporaryDirectory() as temporary:
        store = WeightStore(Path(temporary))
        try:
            trainer.published(0)
            await load(engine, trainer, 0, store)
            practice = await sample(engine, 8, min(tokens, 64), seed)
            kept = {}
            for version in (1, 2, 3):
                trainer.accumulate(groups_of(practice, seed + version), version - 1, 0)
                trainer.step(version - 1, ())
                kept[version] = own_copy(policy_tensors(trainer.model))
                if version == 2:
                    await load(engine, trainer, 2, store)
            found = await sample(engine, count, tokens, seed + 1)
        finally:
            await engine.close()
    requests = [ScoreRequest(one.token_ids, [(PROMPT, PROMPT + tokens)]) for one in found]
    behavior = np.array([one.logprobs for one in found])
    names = {1: "v-1", 2: "honest", 3: "v+1"}
    made = {}
    for version, tensors in kept.items():
        with borrowed(trainer.model, tensors):
            old = score(trainer.model, requests, ForwardSettings(1.0, 4096))
        made[names[version]] = np.abs(np.stack([one[0].double().numpy() for one in old]) - behavior)
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", help="a pretrained model's folder or .gguf file; default: the built-in one, random weights"
    )
    parser.add_argument("--sequences", type=int, default=64, help="of 256 tokens each, per row")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    model = {"pretrained": options.model} if options.model else {"builtin": {"hiddenSize": 64, "layers": 4, "heads": 4}}
    out = {}
    for (learner, engine), rate in itertools.product(PRECISIONS, RATES):
        spec = spec_of(model, rate, learner, engine, 256)
        found = asyncio.run(differences(spec, options.sequences, 256, 1))
        for name, values in found.items():
            out[f"{learner}/{engine}/{rate:.0e}/{name}"] = values
        print(
            learner,
            engine,
            rate,
            {
                k: [float(f"{q:.3g}") for q in np.quantile(v, [0.1, 0.5, 0.9, 0.99, 1])] + [v.mean()]
                for k, v in found.items()
            },
            flush=True,
        )
    if options.save:
        np.savez(options.save, **out)


if __name__ == "__main__":
    main()
