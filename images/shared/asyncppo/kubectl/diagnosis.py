"""Is a job healthy, and why is it slow? From its status and what its pods measure. Pure.

Owns the judgement. Does not own where the figures come from (`cluster.py`) nor how it is shown (`words.py`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from asyncppo.metrics import learner, rollout
from asyncppo.metrics.metric import Metric

Object = Mapping[str, Any]
Samples = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]

GOOD_WHEN_TRUE = (
    "Accepted", "Reconciled", "LearnerReady", "RolloutsReady", "OldLogitsReady", "LedgerBalanced", "EnvironmentHealthy",
    "Exact", "SyncHealthy",
)  # fmt: skip
BY_DESIGN = frozenset({"ApproximateStrategy"})
ENOUGH = 0.25
"""An activity below this share of the time is not why a job is slow."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, or that takes time. share: of the time, where that is known."""

    what: str
    advice: str = ""
    share: float | None = None


class Diagnosis(msgspec.Struct, frozen=True):
    """healthy: nothing is wrong. troubles: what is. slow: what takes the time, the largest first."""

    name: str
    namespace: str
    phase: str
    message: str
    healthy: bool
    troubles: list[Finding]
    slow: list[Finding]


def diagnose(job: Object, learner_samples: Samples, rollout_samples: Sequence[Samples]) -> Diagnosis:
    """The diagnosis of one job. Empty samples: its learner cannot be asked."""
    status = job.get("status") or {}
    troubles = _troubles(status)
    phase = str(status.get("phase") or "")
    if not phase:
        where = "kubectl get pods -A -l app.kubernetes.io/name=asyncppo-operator"
        troubles = [Finding("the operator has not seen this job", f"is it running? {where}")]
    slow = _slow(learner_samples, rollout_samples) if phase == "Running" else []
    return Diagnosis(
        name=str(job["metadata"]["name"]),
        namespace=str(job["metadata"].get("namespace") or ""),
        phase=phase or "unseen",
        message=str(status.get("message") or ""),
        healthy=not troubles,
        troubles=troubles,
        slow=slow,
    )


def _troubles(status: Object) -> list[Finding]:
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    found: list[Finding] = []
    first = status.get("firstFailure")
    if status.get("phase") == "Failed" or (first and status.get("failures")):
        cause = f"{first['pod']}: {first['message']}" if first else str(status.get("message") or "no reason was given")
        times = sum((status.get("failures") or {}).values())
        said = f"failed {times} times so far; first: {cause}" if times else cause
        found.append(
            Finding(said, "kubectl asyncppo logs NAME --previous shows the last words of the container before")
        )
    if status.get("phase") in ("Complete", "Suspended", "Suspending"):
        return found
    for kind in GOOD_WHEN_TRUE:
        condition = conditions.get(kind)
        if condition is not None and condition.get("status") == "False" and condition.get("reason") not in BY_DESIGN:
            found.append(Finding(f"{kind}: {condition.get('message')}", ADVICE.get(str(condition.get("reason")), "")))
    return found


ADVICE = {
    "Unschedulable": "free or add what is short, or lower the role's resources",
    "ImagePullBackOff": "check the image's name and the pull secrets",
    "ErrImagePull": "check the image's name and the pull secrets",
    "CrashLoopBackOff": "kubectl asyncppo logs NAME --previous",
    "PodsNotCreated": "raise the quota, or ask who set it",
    "Forbidden": "give the operator the right it names (the chart's roles have it)",
    "InvalidSpec": "kubectl asyncppo validate FILE says the same before anything is applied",
    "ImmutableField": "put the old value back, or make a job of another name",
    "EpisodesFail": "kubectl asyncppo logs NAME --role rollout has each failure in full; mend the environment",
    "MostlyDiscarded": "kubectl asyncppo logs NAME --role rollout; each discarded trajectory was sampled for nothing",
    "TooFewRollouts": "see RolloutsReady, or lower weightSync.minReady",
    "Violated": "stop the job and keep its volume: a segment was labelled with weights that did not sample it",
}

ACTIVITIES = {
    "Batch": (
        "the learner waits for trajectories",
        "more rollouts (kubectl scale appo NAME --replicas=N), more concurrency, or a faster environment",
    ),
    "Straggler": (
        "the learner waits for the slowest trajectories of groups that would grow too stale",
        "raise staleness.maxVersions, or set staleness.action to Discard",
    ),
    "Training": (
        "forward and backward passes take the learner's time",
        "more threads or devices for the learner; rollouts are not what is short",
    ),
    "Scoring": (
        "scoring old log-probs takes the learner's time",
        "oldLogits.scoring Overlapped or strategy Snapshot score beside the rollouts",
    ),
    "Sync": (
        "version syncs take the learner's time",
        "look at the slowest rollout: kubectl asyncppo logs NAME --role rollout",
    ),
}


def _slow(learner_samples: Samples, rollouts: Sequence[Samples]) -> list[Finding]:
    found: list[Finding] = []
    spent = {dict(labels).get("activity", ""): value for labels, value in _series(learner_samples, learner.ACTIVITY)}
    total = sum(spent.values())
    for activity, seconds in spent.items():
        if activity in ACTIVITIES and total > 0 and seconds / total >= ENOUGH:
            what, advice = ACTIVITIES[activity]
            found.append(Finding(what, advice, seconds / total))
    paused = [_value(samples, rollout.PAUSED_SECONDS) or 0.0 for samples in rollouts if samples]
    if paused and total > 0 and (share := sum(paused) / len(paused) / total) >= ENOUGH:
        what, advice = "rollouts stand still for version syncs", "strategy Snapshot pauses for the load alone"
        found.append(Finding(what, advice, share))
    skew = _value(learner_samples, learner.MEMBER_SKEW)
    if skew is not None and skew > 1:
        found.append(
            Finding(f"a rollout is {skew:.0f} versions behind", "what it samples is soon too stale to train on")
        )
    return sorted(found, key=lambda finding: -(finding.share or 0.0))


def _series(samples: Samples, metric: Metric) -> list[tuple[tuple[tuple[str, str], ...], float]]:
    return list(samples.get(metric.name, {}).items())


def _value(samples: Samples, metric: Metric) -> float | None:
    found = _series(samples, metric)
    return found[0][1] if found else None
