"""What the check of a segment's values sees and what it takes for an error: false alarms, and neighbouring versions missed.

    python -m benchmarks.segment_check [--model runs/guess-number/model] [--sequences 16]

Three models of the built-in shape: random weights; random weights eight times as large (harsh: chaotic, so that bfloat16 is nats apart on
some tokens); trained on a random Markov chain (most tokens certain, some not). Or the one named: a folder or a .gguf file. Per model and
pair of precisions the torch engine samples under one version, and the product's scorer gives the old log-probs of those tokens under that
version (honest) and under its neighbour, one real optimizer step away, at each learning rate (a wrong label). The tokens are cut into
segments, and each is judged by `verify_scores`, with the job's default bound / with twice the honest typical difference. Beside it what a
bound of ten times the default on each single token would do to honest segments. Prints two tables in Markdown.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asyncppo.api.correction import OldLogitsSpec, Strategy
from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.training import Precision
from asyncppo.wire.experience import Trajectory
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.algorithm.batch import NO_VERSION
from asyncppo_runtime.learner.trainer import Trainer
from asyncppo_runtime.ledger.records import LeaseState, SegmentKey, SegmentState, StoredSegment, StoredTrajectory
from asyncppo_runtime.old_logprobs.exact_scorer import ScoreRequest, score
from asyncppo_runtime.old_logprobs.interface import ForwardSettings
from asyncppo_runtime.old_logprobs.verify import segment_bound, typical_difference, verify_scores
from asyncppo_runtime.policy import build_model, build_tokenizer, save_pretrained
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
MOST = 2048
KINDS = ("random", "harsh", "trained")
SHAPE = {"hiddenSize": 64, "layers": 4, "heads": 4}
PROMPT, TOKENS, WARM, TRAINING_STEPS = 4, 256, 5, 150


@dataclass(frozen=True)
class Sampled:
    """One answer of the engine: prompt and output ids, behavior log-probs of the output."""

    token_ids: list[int]
    logprobs: list[float]


def spec_of(
    model: dict[str, object], learner: Precision, engine: Precision, rate: float = 1e-12, tokens: int = TOKENS
) -> AsyncPPOJobSpec:
    """A job whose only purpose is its model, its precisions and its rate."""
    return AsyncPPOJobSpec.model_validate(
        {
            "model": model,
            "environment": {"type": "GuessNumber"},
            "algorithm": {"updates": 100, "advantage": "REINFORCEPlusPlus"},
            "optimizer": {"learningRate": rate, "precision": learner.value, "microBatchTokens": 4096},
            "oldLogits": {"strategy": "Recompute"},
            "sampling": {"maxTokens": tokens, "contextLength": PROMPT + tokens},
            "rollout": {"concurrency": 32, "engine": {"precision": engine.value, "kvCacheBytes": 2**31}},
        }
    )


def save_model(kind: str, folder: Path) -> None:
    """One of the three models, as a pretrained folder."""
    spec = spec_of({"builtin": SHAPE}, Precision.FLOAT32, Precision.FLOAT32)
    model = build_model(spec, 0, torch.float32)
    generator = torch.Generator().manual_seed(0)
    if kind == "harsh":
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "norm" not in name:
                    parameter.mul_(8.0)
    if kind == "trained":
        words = model.config.vocab_size
        chain = torch.softmax(4.0 * torch.randn(words, words, generator=generator), -1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(TRAINING_STEPS):
            ids = torch.randint(words, (16, 1), generator=generator)
            for _ in range(48):
                ids = torch.cat([ids, torch.multinomial(chain[ids[:, -1]], 1, generator=generator)], 1)
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_pretrained(model, build_tokenizer(spec), folder)


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


async def differences(
    model: dict[str, object], learner: Precision, engine_precision: Precision, count: int
) -> dict[float, np.ndarray]:
    """old - behavior, float64 [count, TOKENS], under the label of the version that sampled (0) and of its neighbour at each rate."""
    spec = spec_of(model, learner, engine_precision)
    trainer, engine = Trainer(spec), TorchEngine(spec)
    await engine.start()
    with tempfile.TemporaryDirectory() as temporary:
        store = WeightStore(Path(temporary))
        try:
            trainer.published(0)
            await load(engine, trainer, 0, store)
            practice = await sample(engine, 8, 32, 1)
            # moments of some gradients, at a rate that moves nothing: the step to the neighbour is then one in mid-training
            for update in range(WARM):
                trainer.accumulate(groups_of(practice, update), update, 0)
                trainer.step(update, ())
            await load(engine, trainer, 1, store)
            found = await sample(engine, count, TOKENS, 2)
        finally:
            await engine.close()
    requests = [ScoreRequest(one.token_ids, [(PROMPT, PROMPT + TOKENS)]) for one in found]
    behavior = np.array([one.logprobs for one in found])
    checkpoint = trainer.checkpoint(1, WARM, "")

    def apart(scorer: Trainer) -> np.ndarray:
        old = score(scorer.model, requests, ForwardSettings(1.0, 4096))
        return np.stack([one[0].double().numpy() for one in old]) - behavior

    made = {0.0: apart(trainer)}
    for rate in RATES:
        neighbour = Trainer(spec_of(model, learner, engine_precision, rate))
        neighbour.restore(checkpoint)
        neighbour.accumulate(groups_of(practice, WARM), WARM, 0)
        neighbour.step(WARM, ())
        made[rate] = apart(neighbour)
    return made


def refused(apart: np.ndarray, tokens: int, bound: float) -> float:
    """The share of segments of so many tokens that `verify_scores` refuses; of at most MOST segments."""
    segments = torch.from_numpy(apart).reshape(-1, tokens)[:MOST]
    nothing = torch.zeros(tokens, dtype=torch.float64)
    return sum(not verify_scores(one, nothing, bound).accepted for one in segments) / len(segments)


def rows(name: str, found: dict[float, np.ndarray], bounds: tuple[float, float], per_token: float) -> list[str]:
    """The table's lines of one model and pair of precisions, a pair of shares in each cell."""
    made = []
    for tokens in SEGMENTS:
        segments = np.abs(found[0.0]).reshape(-1, tokens)[:MOST]
        alarms = " / ".join(f"{refused(found[0.0], tokens, bound):.1%}" for bound in bounds)
        missed = [" / ".join(f"{1 - refused(found[rate], tokens, bound):.0%}" for bound in bounds) for rate in RATES]
        worst = float((segments.max(1) > per_token).mean())
        made.append(f"| {name} | {tokens} | {alarms} | {' | '.join(missed)} | {worst:.1%} |")
    return made


def report(models: dict[str, dict[str, object]], sequences: int) -> list[str]:
    """Both tables: how far apart the values are, and what is refused."""
    shapes = [
        "| model, learner / engine | honest: typical, largest | "
        + " | ".join(f"typical at {rate:.0e}" for rate in RATES)
        + " |"
    ]
    shapes += ["|---" * (2 + len(RATES)) + "|"]
    judged = [
        "| model, learner / engine | tokens | false alarms | " + " | ".join(f"missed at {rate:.0e}" for rate in RATES)
    ]
    judged[0] += " | false alarms of a bound on each token |"
    judged += ["|---" * (4 + len(RATES)) + "|"]
    for (kind, model), (learner, engine) in itertools.product(models.items(), PRECISIONS):
        found = asyncio.run(differences(model, learner, engine, sequences))
        typical = {
            rate: typical_difference(torch.from_numpy(v.ravel()), torch.zeros(v.size)) for rate, v in found.items()
        }
        name, others = f"{kind}, {learner} / {engine}", " | ".join(f"{typical[rate]:.2g}" for rate in RATES)
        shapes.append(f"| {name} | {typical[0.0]:.2g}, {np.abs(found[0.0]).max():.2g} | {others} |")
        default = segment_bound(OldLogitsSpec(strategy=Strategy.SNAPSHOT), learner, engine)
        judged += rows(name, found, (default, 2 * typical[0.0]), 10 * default)
        print(f"{name} done", file=sys.stderr, flush=True)
    return [*shapes, "", *judged]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a pretrained model's folder or .gguf file, instead of the three")
    parser.add_argument(
        "--sequences", type=int, default=32, help=f"of {TOKENS} tokens each, per model and pair of precisions"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        models: dict[str, dict[str, object]] = {}
        for kind in () if options.model else KINDS:
            save_model(kind, Path(temporary) / kind)
            models[kind] = {"pretrained": str(Path(temporary) / kind)}
        if options.model:
            models["given"] = {"pretrained": options.model}
        print("\n".join(report(models, options.sequences)))


if __name__ == "__main__":
    main()
