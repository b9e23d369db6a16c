"""The life of a job: which phase it is in and what that asks for. Pure.

Owns suspend, deadline, backoff, end and time-to-live. Does not own the objects (`planner.py`) nor how a phase is told (`status.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.api.status import Phase
from asyncppo.report.measures import LearnerStatus
from asyncppo.report.remarks import unlearnt
from asyncppo_operator import names
from asyncppo_operator.memory import FINAL, Failure, Memory, format_time
from asyncppo_operator.names import Role
from asyncppo_operator.settings import Timing
from asyncppo_operator.views import PodView


class Target(StrEnum):
    """What the job's pods should be.

    RUN: as many as the spec says. DRAIN: only the learner, so that the others can hand over what they have. IDLE: none, objects stay.
    GONE: none, the workloads are deleted. DELETED: the job itself is.
    """

    RUN = "Run"
    DRAIN = "Drain"
    IDLE = "Idle"
    GONE = "Gone"
    DELETED = "Deleted"


@dataclass(frozen=True)
class Decision:
    """target, the memory to keep, why (CamelCase and for humans), and when to look again though nothing happens (seconds)."""

    target: Target
    memory: Memory
    reason: str
    message: str
    again: float | None = None


def decide(
    spec: AsyncPPOJobSpec,
    memory: Memory,
    learner: LearnerStatus | None,
    pods: Sequence[PodView],
    now: datetime,
    timing: Timing,
    lost: str = "",
) -> Decision:
    """The next phase. `learner`: its newest answer, None when it does not answer. `pods`: all that exist. Failures are counted already.
    `lost`: what is to be said of the learner's volume, that was there and is gone."""
    if memory.phase in FINAL:
        return _over(spec, memory, pods, now, timing)
    if learner is not None and learner.phase == "Complete":
        message = "; ".join(
            filter(None, (f"{learner.update} of {learner.updates} updates done", unlearnt(learner.learning)))
        )
        return _end(memory, Phase.COMPLETE, "Complete", message, now)
    if learner is not None and learner.phase == "Failed":
        text = learner.message or "the learner gave no reason"
        role = Role.LEARNER
        failure = Failure(role.value, names.pod(learner.job, role, 0), "LearnerFailed", text, format_time(now))
        return _fail(memory, "LearnerFailed", text, failure, now)
    if lost:
        return _fail(memory, "StorageLost", lost, memory.first_failure, now)
    if memory.total_failures > spec.backoff_limit:
        text = f"{memory.total_failures} failures, backoffLimit is {spec.backoff_limit}"
        return _fail(memory, "BackoffLimitExceeded", text, memory.first_failure, now)
    if spec.suspend:
        return _suspend(memory, pods, now, timing)
    memory = replace(memory, suspending=None)
    if memory.started is None:
        memory = replace(memory, started=now)
    deadline = _deadline(spec, memory)
    if deadline is not None and now >= deadline:
        text = f"the job ran longer than activeDeadlineSeconds ({spec.active_deadline_seconds})"
        return _fail(memory, "DeadlineExceeded", text, memory.first_failure, now)
    again = None if deadline is None else (deadline - now).total_seconds()
    return _go_on(memory, learner, again)


def _go_on(memory: Memory, learner: LearnerStatus | None, again: float | None) -> Decision:
    if learner is not None and learner.phase == "Running":
        return Decision(Target.RUN, replace(memory, phase=Phase.RUNNING), "Training", learner.message, again)
    if memory.phase in (Phase.RUNNING, Phase.RECOVERING):
        text = "the learner does not answer; what it had is in its ledger and training goes on when it is back"
        if learner is not None:
            text = learner.message or "the learner is starting again"
        return Decision(Target.RUN, replace(memory, phase=Phase.RECOVERING), "LearnerAway", text, again)
    text = (learner.message if learner is not None else "") or "waiting for the learner's first answer"
    return Decision(Target.RUN, replace(memory, phase=Phase.PENDING), "Starting", text, again)


def _suspend(memory: Memory, pods: Sequence[PodView], now: datetime, timing: Timing) -> Decision:
    """Rollouts go first and hand over what they have; then the learner, which writes a checkpoint when it is told to end."""
    memory = replace(memory, started=None)
    if not pods:
        kept = replace(memory, phase=Phase.SUSPENDED, suspending=None)
        return Decision(Target.IDLE, kept, "Suspended", "no pods; the ledger and the checkpoints are kept")
    if memory.phase is Phase.SUSPENDED:
        return Decision(Target.IDLE, memory, "Suspended", f"{len(pods)} pods are ending")
    since = memory.suspending or now
    memory = replace(memory, phase=Phase.SUSPENDING, suspending=since)
    workers = sum(pod.role is not Role.LEARNER for pod in pods)
    left = timing.stop_seconds - (now - since).total_seconds()
    if workers == 0 or left <= 0:
        return Decision(Target.IDLE, memory, "Suspending", "the learner writes a checkpoint and ends")
    text = f"{workers} workers hand over what they have; the learner ends after them"
    return Decision(Target.DRAIN, memory, "Suspending", text, left)


def _deadline(spec: AsyncPPOJobSpec, memory: Memory) -> datetime | None:
    if spec.active_deadline_seconds is None or memory.started is None:
        return None
    return memory.started + timedelta(seconds=spec.active_deadline_seconds)


def _end(memory: Memory, phase: Phase, reason: str, message: str, now: datetime) -> Decision:
    """The first reconcile of the end tells it; the workloads go at the next, when the status that ends the job is stored."""
    ended = replace(memory, phase=phase, completed=now, suspending=None)
    return Decision(Target.RUN, ended, reason, message, 0.0)


def _fail(memory: Memory, reason: str, text: str, cause: Failure | None, now: datetime) -> Decision:
    memory = replace(memory, first_failure=memory.first_failure or cause)
    first = memory.first_failure
    message = text
    if first is not None and first.message not in text:
        message = f"{text}; first failure: {first.pod}: {first.message}"
    return _end(memory, Phase.FAILED, reason, message, now)


def _over(spec: AsyncPPOJobSpec, memory: Memory, pods: Sequence[PodView], now: datetime, timing: Timing) -> Decision:
    """Workers go first, as long as they can take leave of their learner; then all of it; then, in time, the job itself."""
    reason = memory.phase.value
    since = (now - memory.completed).total_seconds() if memory.completed is not None else timing.stop_seconds
    if since < timing.stop_seconds and any(pod.role is not Role.LEARNER for pod in pods):
        return Decision(Target.DRAIN, memory, reason, "", timing.stop_seconds - since)
    if spec.ttl_seconds_after_finished is None or memory.completed is None:
        return Decision(Target.GONE, memory, reason, "")
    left = spec.ttl_seconds_after_finished - since
    if left <= 0:
        return Decision(Target.DELETED, memory, reason, "ttlSecondsAfterFinished is over")
    return Decision(Target.GONE, memory, reason, "", left)
