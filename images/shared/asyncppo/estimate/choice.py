"""`strategy: Auto`: which exact route a job takes, decided once, from the spec alone, with a reason for people.

Owns the decision and what becomes of a job's spec by it. It is pure: operator and local runner decide alike, and nothing measured takes
part. Does not own the costs it weighs (`costs.py`) nor where the decision is kept (the accepted job: the run's job.json, the
operator's ConfigMap).
"""

from dataclasses import dataclass

from asyncppo.api.correction import Scoring, Strategy
from asyncppo.api.implemented import built_values
from asyncppo.api.job import AsyncPPOJob, AsyncPPOJobSpec
from asyncppo.estimate.costs import Estimate, Route, estimate
from asyncppo.estimate.speeds import assumed
from asyncppo.estimate.workload import workload
from asyncppo.report.wording import duration, short

CLOSE = 0.01
"""Routes within this share of the fastest count as equally fast; the one that keeps the fewest bytes is taken."""


@dataclass(frozen=True)
class Choice:
    """What Auto takes, and why."""

    route: Route
    reason: str


def choose(spec: AsyncPPOJobSpec) -> Choice:
    """The exact route with the shortest update under assumed speeds; fewer bytes where two are as fast, then the simpler one.

    Dedicated takes part only where oldLogit.replicas offers workers.
    """
    load = workload(spec)
    built = built_values("oldLogits.strategy")
    routes = [
        Route(Strategy.INTERRUPTION, Scoring.BARRIER),
        Route(Strategy.INTERRUPTION, Scoring.OVERLAPPED),
        Route(Strategy.SNAPSHOT, medium=spec.old_logits.snapshot.medium),
        *([Route(Strategy.DEDICATED)] if load.workers else []),
    ]
    found = estimate(load, assumed(load), [route for route in routes if route.strategy.value in built])
    possible = [each for each in found if not each.obstacle] or found
    fastest = min(each.update for each in possible)
    taken = min((each for each in possible if each.update <= fastest * (1 + CLOSE)), key=lambda each: each.held)
    return Choice(taken.route, _reason(taken, found, load.origin))


def reason(job: AsyncPPOJob, before: AsyncPPOJob | None = None) -> str:
    """Why the job runs what it runs, "" unless its strategy is Auto. before: as for `settled`."""
    if job.spec.old_logits.strategy is not Strategy.AUTO:
        return ""
    choice = choose(job.spec)
    now = (choice.route.strategy, choice.route.scoring)
    if before is None or now == (before.spec.old_logits.strategy, before.spec.old_logits.scoring):
        return choice.reason
    return f"Auto took {before.spec.old_logits.strategy} when the job was accepted; a choice never changes during a job"


def settled(job: AsyncPPOJob, before: AsyncPPOJob | None = None) -> AsyncPPOJob:
    """The job with Auto replaced by what it takes; any other job as it is. before: the same job as it was accepted earlier, whose
    strategy stays: a choice never changes during a job."""
    spec = job.spec
    if spec.old_logits.strategy is not Strategy.AUTO:
        return job
    if before is not None:
        chosen = (before.spec.old_logits.strategy, before.spec.old_logits.scoring)
    else:
        route = choose(spec).route
        chosen = (route.strategy, route.scoring)
    workers = spec.old_logit.replicas if chosen[0] is Strategy.DEDICATED else 0
    return job.model_copy(
        update={
            "spec": spec.model_copy(
                update={
                    "old_logits": spec.old_logits.model_copy(update={"strategy": chosen[0], "scoring": chosen[1]}),
                    "old_logit": spec.old_logit.model_copy(update={"replicas": workers}),
                }
            )
        }
    )


def _reason(taken: Estimate, found: list[Estimate], origin: str) -> str:
    others = "; ".join(
        f"{each.route.label} {each.obstacle}"
        if each.obstacle
        else f"{each.route.label} {_seconds(each.update)}, {each.held / 1e9:.3g} GB"
        for each in found
        if each is not taken
    )
    return (
        f"Auto took {taken.route.label}: an update of about {_seconds(taken.update)} with {taken.held / 1e9:.3g} GB of versions kept "
        f"({taken.bottleneck} is waited for); against {others}. Model size: {origin}. Speeds are assumed, see docs/estimate.md"
    )


def _seconds(value: float) -> str:
    return short(value) if value < 60 else duration(value)
