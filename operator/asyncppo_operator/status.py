"""The status of a job: phase, figures, conditions, the memory the operator keeps in it. Pure.

Owns what is said. Does not own when it is written (`reconcile.py`) nor the judgement in the conditions (`verdicts.py`).
"""

from collections.abc import Mapping
from math import floor
from typing import Any

from asyncppo.api.status import Phase
from asyncppo.metrics.learner_collector import version_skew
from asyncppo.report.measures import LearnerStatus
from asyncppo_operator import names
from asyncppo_operator.conditions import ON_THE_WAY, Condition, Kind, condition, merge
from asyncppo_operator.memory import FINAL, Memory, format_time
from asyncppo_operator.names import Role
from asyncppo_operator.situation import Situation
from asyncppo_operator.verdicts import WITHOUT_PODS, ready_members, verdicts
from asyncppo_operator.views import brief

Status = dict[str, Any]

# Written at most every few seconds; everything else in a status is written at once.
FIGURES = frozenset(
    {
        "version",
        "rollouts",
        "versions",
        "progress",
        "reward",
        "staleness",
        "oldLogits",
        "discrepancy",
        "ledger",
        "syncs",
        "throughput",
        "notes",
        "message",
    }
)
# In the order in which one should ask: the first that is not as it should be is the message.
MESSAGE_ORDER = (
    Kind.ACCEPTED,
    Kind.RECONCILED,
    Kind.LEARNER_READY,
    Kind.ROLLOUTS_READY,
    Kind.OLD_LOGITS_READY,
    Kind.LEDGER_BALANCED,
    Kind.ENVIRONMENT_HEALTHY,
    Kind.EXACT,
    Kind.SYNC_HEALTHY,
)
MOST_NOTES = 8
BY_DESIGN = frozenset({"ApproximateStrategy"})


def summarize(seen: Situation, before: Mapping[str, Any]) -> Status:
    """The whole status to write. `before`: the one written last; what nothing new is known of is kept from it."""
    memory = seen.decision.memory if seen.decision is not None else seen.memory
    phase = memory.phase if seen.spec is not None else Phase.INVALID
    said = before.get("conditions") or []
    if seen.spec is None:
        # nothing runs of a job that was never valid, or is not any more; what was said of its pods is not known to be so
        said = [old for old in said if old.get("type") in (Kind.READY, Kind.ACCEPTED, Kind.RECONCILED)]
    told = {str(old.get("type")) for old in said}
    conditions = merge(said, verdicts(seen, told), seen.generation, seen.now)
    conditions = merge(conditions, [_ready(phase, conditions, seen)], seen.generation, seen.now)
    status: Status = {
        **{key: before[key] for key in sorted(FIGURES) if key in before},
        "observedGeneration": seen.generation,
        "phase": phase.value,
        **_remembered(memory),
        "conditions": conditions,
    }
    if seen.spec is not None:
        status["strategy"] = seen.spec.old_logits.strategy.value
        # The first reason stays: it is the one the job was accepted with.
        status["strategyReason"] = before.get("strategyReason") or seen.acceptance.choice
        status["rollouts"] = _rollouts(seen) if seen.decision is not None else before.get("rollouts")
    if seen.learner is not None:
        status |= _figures(seen, seen.learner)
    status["message"] = _message(seen, phase, conditions, before)
    return _told(status)


def _told(status: Mapping[str, Any]) -> Status:
    """Without what there is nothing to say of: servers of version 1.20 take an empty text for a null, and refuse it."""
    return {
        key: _told(value) if isinstance(value, dict) else value
        for key, value in status.items()
        if value not in (None, "")
    }


def _remembered(memory: Memory) -> Status:
    found: Status = {
        "startTime": format_time(memory.started) if memory.started else None,
        "completionTime": format_time(memory.completed) if memory.completed else None,
        "suspendingTime": format_time(memory.suspending) if memory.suspending else None,
        "failures": dict(memory.failures) or None,
        "countedRestarts": dict(memory.counted) or None,
        "storageUid": memory.storage or None,
    }
    if memory.first_failure is not None:
        first = memory.first_failure
        found["firstFailure"] = {
            "role": first.role,
            "pod": first.pod,
            "reason": first.reason,
            "message": first.message,
            "at": first.at,
        }
    return {key: value for key, value in found.items() if value is not None}


def _rollouts(seen: Situation) -> Status:
    pods = seen.pods_of(Role.ROLLOUT)
    wanted = seen.desired.get(Role.ROLLOUT, 0)
    ready = sum(pod.ready for pod in pods)
    ending = sum(pod.role is Role.ROLLOUT for pod in seen.pods) - min(wanted, len(pods))
    selector = ",".join(f"{key}={value}" for key, value in sorted(names.selector(seen.job, Role.ROLLOUT).items()))
    return {
        "desired": wanted,
        "replicas": len(pods),
        "ready": ready,
        "ending": ending,
        "summary": f"{min(ready, wanted)}/{wanted}" + (f" ({ending} ending)" if ending else ""),
        "selector": selector,
    }


def _figures(seen: Situation, learner: LearnerStatus) -> Status:
    assert seen.spec is not None
    members = [member.version for member in learner.members if member.state == "Ready"]
    staleness, old, ledger, syncs = learner.staleness, learner.old_logits, learner.ledger, learner.syncs
    figures: Status = {
        "version": learner.version,
        "versions": {
            "learner": learner.version,
            "oldestRollout": min(members, default=-1),
            "newestRollout": max(members, default=-1),
            "skew": version_skew(learner),
            "members": ready_members(learner),
        },
        "progress": {
            "update": learner.update,
            "updates": learner.updates,
            "percent": round(100.0 * learner.update / max(1, learner.updates), 1),
            "summary": f"{learner.update}/{learner.updates}",
            "waitingFor": learner.waiting_for,
        },
        "reward": {
            "newest": _short(learner.last_reward),
            "first": _short(learner.reward.first),
            "last": _short(learner.reward.last),
            "best": _short(learner.reward.best),
        },
        "staleness": {
            "mean": _short(staleness.mean),
            "max": staleness.max,
            "bound": seen.spec.staleness.max_versions,
            "summary": f"{staleness.mean:.2f} (max {staleness.max})",
        },
        "oldLogits": {
            "exact": old.exact,
            "exactCoverage": _short(old.exact_coverage),
            "violations": old.violations,
            "fallbacks": old.fallbacks,
            "summary": _exactness(learner),
        },
        "discrepancy": {
            "k3": _short(learner.discrepancy.k3),
            "maxAbs": _short(learner.discrepancy.max_abs),
            "slope": _short(learner.discrepancy.slope),
        },
        "ledger": {
            "balanced": ledger.balanced,
            "leased": ledger.leased,
            "received": ledger.received,
            "expired": ledger.expired,
            "returned": ledger.returned,
            "inFlight": ledger.in_flight,
            "trained": ledger.trained,
            "waiting": ledger.waiting,
            "discarded": sum(ledger.discarded.values()),
            "discardedShare": _short(ledger.discarded_share),
            "discardedReason": ledger.commonest_discard,
        },
        "syncs": {
            "count": syncs.count,
            "fenced": syncs.fenced,
            "pauseSecondsP95": _short(syncs.pause_seconds.p95),
            "stallSecondsP95": _short(syncs.stall_seconds.p95),
        },
        "throughput": {
            "tokensPerSecond": _short(learner.throughput.tokens_per_second),
            "trajectoriesPerSecond": _short(learner.throughput.trajectories_per_second),
        },
    }
    figures["notes"] = [brief(note) for note in learner.notes[:MOST_NOTES]] or None
    if learner.eta_seconds is not None:
        figures["progress"]["etaSeconds"] = round(learner.eta_seconds)
    if learner.last_good_checkpoint:
        figures["progress"]["lastCheckpoint"] = learner.last_good_checkpoint
    return figures


def _exactness(learner: LearnerStatus) -> str:
    """A column: the share of tokens that are exact, No for a strategy that is not, a dash before the first token."""
    if not learner.old_logits.exact:
        return "No"
    if not learner.staleness.histogram:
        return "-"
    # rounded down: 100% is said of all tokens only
    return f"{floor(learner.old_logits.exact_coverage * 1e4) / 100:g}%"


def _short(value: float) -> float:
    """Four significant digits: more are noise in a status, and each change is a write."""
    return float(f"{value:.4g}")


def _message(seen: Situation, phase: Phase, conditions: list[dict[str, Any]], before: Mapping[str, Any]) -> str:
    if phase in FINAL:
        told = seen.decision.message if seen.decision is not None else ""
        return brief(told or before.get("message") or phase.value)
    wrong = _first_wrong(phase, conditions)
    if wrong is not None:
        return brief(wrong["message"])
    if phase is Phase.RUNNING and seen.learner is not None:
        learner = seen.learner
        eta = "" if learner.eta_seconds is None else f", about {learner.eta_seconds:.0f} s left"
        return f"update {learner.update} of {learner.updates}{eta}"
    return brief(seen.decision.message if seen.decision is not None else "")


def _first_wrong(phase: Phase, conditions: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first condition that one should ask about."""
    by_kind = {c["type"]: c for c in conditions}
    if phase in (Phase.SUSPENDING, Phase.SUSPENDED):
        order: tuple[Kind, ...] = (Kind.ACCEPTED, Kind.RECONCILED)
    else:
        order = MESSAGE_ORDER
    wrong = (c for kind in order if (c := by_kind.get(kind.value)) is not None and c["status"] == "False")
    return next((c for c in wrong if c["reason"] not in BY_DESIGN), None)


def _ready(phase: Phase, conditions: list[dict[str, Any]], seen: Situation) -> Condition:
    """One answer for tools that wait for health: True when the job trains as it should, is complete, or is suspended as asked."""
    if phase is Phase.COMPLETE:
        return condition(Kind.READY, True, *WITHOUT_PODS[phase])
    if phase is Phase.FAILED:
        failed = next((c["message"] for c in conditions if c["type"] == Kind.FAILED), "the job has failed")
        return condition(Kind.READY, False, WITHOUT_PODS[phase][0], failed)
    wrong = _first_wrong(phase, conditions)
    if wrong is not None:
        return condition(Kind.READY, False, wrong["reason"], f"{wrong['type']}: {wrong['message']}")
    message = seen.decision.message if seen.decision is not None else ""
    if phase is Phase.RUNNING:
        return condition(Kind.READY, True, "Training", "the job trains")
    return condition(Kind.READY, phase is Phase.SUSPENDED, phase.value, message)


def significant(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the change is worth an immediate write: anything but figures, messages of conditions, and from one "not yet" to the next."""

    def essence(status: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in status.items() if key not in FIGURES | {"conditions"}}
        kept["conditions"] = [
            (
                c.get("type"),
                c.get("status"),
                None if c.get("reason") in ON_THE_WAY else c.get("reason"),
                c.get("observedGeneration"),
            )
            for c in status.get("conditions") or []
        ]
        return kept

    return essence(before) != essence(after)
