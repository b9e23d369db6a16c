"""`asyncppo validate MANIFEST`: is this a job, and what would it do?

Owns the verdict's words. Does not own the checks (`asyncppo.api.manifest`).
"""

import argparse
from pathlib import Path

from asyncppo.api.correction import OldLogitsSpec, OnUnavailable, Scoring, Strategy
from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import load_manifest
from asyncppo.api.warnings import warnings
from asyncppo.cli.command import Subparsers
from asyncppo.cli.exit_codes import ExitCode
from asyncppo.estimate.choice import choose

HOW: dict[Strategy, str] = {
    Strategy.INTERRUPTION: "rollouts pause between two versions and every token is scored by the version that sampled it",
    Strategy.SNAPSHOT: "versions are kept until every token sampled by them is scored",
    Strategy.DEDICATED: "old-logit workers score every token with the version that sampled it",
    Strategy.EWMA: "one moving average of the weights stands in for the sampling version",
    Strategy.LOG_LINEAR: "interpolated between the engine's and the current log-probs",
    Strategy.LINEAR: "interpolated between the engine's and the current probabilities",
    Strategy.RECOMPUTE: "the weights at the start of the step stand in for the sampling version",
    Strategy.ROLLOUT: "the engine's own log-probs stand in for the trainer's",
    Strategy.AUTO: "an exact strategy is taken when the job is accepted, and stays",
}


def register(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "validate", help="check a manifest and say what it would do", description="Check a manifest; start nothing."
    )
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="a YAML or JSON file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the verdict. Raises UserError when the manifest is not valid."""
    print(verdict(load_manifest(arguments.manifest), str(arguments.manifest)))
    return ExitCode.DONE


def verdict(job: AsyncPPOJob, where: str) -> str:
    """What a valid job is about, for people, and what is doubtful about it."""
    lines = [f"{where} is valid: job {job.metadata.name} in namespace {job.metadata.namespace}", ""]
    rows = _rows(job)
    width = max(len(name) for name, _ in rows)
    doubts = [f"\nwarning: {each}" for each in warnings(job.spec)]
    return "\n".join(lines + [f"  {name:<{width}}  {text}" for name, text in rows] + doubts)


def exactness(old_logits: OldLogitsSpec) -> str:
    """Whether the old log-probs will be exact, with the reason."""
    how = HOW[old_logits.strategy]
    if not old_logits.strategy.exact:
        return f"No: {how}"
    if old_logits.on_unavailable is OnUnavailable.FALLBACK:
        return f"Yes, except tokens that fall back to Recompute, which are counted: {how}"
    return f"Yes: {how}"


def _rows(job: AsyncPPOJob) -> list[tuple[str, str]]:
    spec = job.spec
    algorithm, old_logits, engine = spec.algorithm, spec.old_logits, spec.rollout.engine
    strategy = str(old_logits.strategy)
    if old_logits.strategy is Strategy.INTERRUPTION:
        strategy += f", scoring {old_logits.scoring}"
        strategy += " beside the rollouts" if old_logits.scoring is Scoring.OVERLAPPED else " while they are paused"
    if old_logits.strategy is Strategy.AUTO:
        strategy = choose(spec).reason
    batch = algorithm.batch_groups * algorithm.group_size
    bound = spec.staleness.max_versions
    return [
        ("model", _model(job)),
        ("environment", f"{spec.environment.entrypoint or spec.environment.type}, at most {spec.environment.max_turns} turns"),
        ("objective", f"{algorithm.loss} loss, {algorithm.advantage} advantages, discrepancy control {algorithm.discrepancy.control}"),
        ("training", f"{algorithm.updates} updates of {algorithm.batch_groups} groups of {algorithm.group_size}: "
                     f"{algorithm.updates * batch} trajectories"),
        ("old log-probs", strategy),
        ("exact", exactness(old_logits)),
        ("staleness", "synchronous: no token is older than the weights that train on it" if bound == 0
                      else f"at most {_count(bound, 'version')} of every token; beyond that: {spec.staleness.action}"),
        ("rollouts", f"{spec.rollout.replicas} with engine {engine.type} in {engine.precision}, "
                     f"{_count(spec.rollout.concurrency, 'episode')} at once in each"),
        ("learner", f"{spec.optimizer.precision}, {_count(spec.optimizer.micro_batch_tokens, 'token')} in one forward"),
        ("seed", str(spec.seed)),
    ]  # fmt: skip


def _model(job: AsyncPPOJob) -> str:
    builtin = job.spec.model.builtin
    if builtin is None:
        return str(job.spec.model.pretrained)
    return f"a tiny transformer with random weights: {_count(builtin.layers, 'layer')} of width {builtin.hidden_size}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
