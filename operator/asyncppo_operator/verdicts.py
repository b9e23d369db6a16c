"""The verdicts on a job, one condition each: is it accepted, are its pods there, does it sync, is it exact, is nothing lost.

Owns reasons and messages. Pure. Does not own the status around them (`status.py`).
"""

from collections import Counter
from collections.abc import Collection, Iterator

from asyncppo.api.status import Phase
from asyncppo.report.measures import LearnerStatus, LedgerTotals
from asyncppo.report.remarks import discards, failing
from asyncppo.sync.limits import SyncLimits
from asyncppo_operator import names
from asyncppo_operator.conditions import Condition, Kind, condition
from asyncppo_operator.memory import FINAL
from asyncppo_operator.names import Role
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.situation import Situation
from asyncppo_operator.views import PodView

KIND_OF_ROLE = {
    Role.LEARNER: Kind.LEARNER_READY,
    Role.ROLLOUT: Kind.ROLLOUTS_READY,
    Role.OLD_LOGIT: Kind.OLD_LOGITS_READY,
}
# Phases in which no pod is wanted: the reason of what is said of pods and syncs then, and why.
WITHOUT_PODS = {
    Phase.COMPLETE: ("JobComplete", "the job is complete"),
    Phase.FAILED: ("JobFailed", "the job has failed"),
    Phase.SUSPENDED: ("JobSuspended", "the job is suspended"),
    Phase.SUSPENDING: ("Ending", "the job is being suspended"),
}
# Answers come every few seconds; one this old says that something is wrong, though not yet what.
LATE_SECONDS = 15.0
MOSTLY = 0.5
"""Share of discarded trajectories from which an environment is not healthy."""


def verdicts(seen: Situation, told: Collection[str] = ()) -> Iterator[Condition]:
    """Every condition there is something to say about now. `told`: the types of those that were said before and stay as they are."""
    yield condition(Kind.ACCEPTED, seen.acceptance.accepted, seen.acceptance.reason, seen.acceptance.message)
    if seen.problem is not None:
        yield condition(Kind.RECONCILED, False, seen.problem.reason, seen.problem.message)
    elif seen.settled is False:
        yield condition(Kind.RECONCILED, None, "Reconciling", "the job was seen; its objects are being made")
    elif seen.settled:
        yield condition(Kind.RECONCILED, True, "UpToDate", "the cluster has what the job asks for")
    if seen.spec is None or seen.decision is None:
        return
    phase = seen.decision.memory.phase
    yield from _states(seen, phase)
    # what the learner said last of its tokens and its ledger stays true when it is gone
    if seen.learner is not None or Kind.EXACT not in told:
        yield _exact(seen)
    if seen.learner is not None:
        yield _ledger(seen.learner.ledger)
        yield _environment(seen.learner)
    over = WITHOUT_PODS.get(phase)
    if over is None and seen.decision.target is Target.IDLE:
        over = ("MoreUpdates", seen.decision.message)
    for role, wanted in seen.desired.items():
        # the learner of a job that is being suspended waits for the others
        goes = over is not None and (wanted == 0 or phase in FINAL)
        yield _leaving(seen, role, *over) if over is not None and goes else _role(seen, role, wanted)
    yield _sync(seen) if over is None else condition(Kind.SYNC_HEALTHY, None, over[0], f"no syncs: {over[1]}")


def _states(seen: Situation, phase: Phase) -> Iterator[Condition]:
    assert seen.decision is not None
    reason, message = seen.decision.reason, seen.decision.message
    if phase in (Phase.SUSPENDING, Phase.SUSPENDED):
        yield condition(Kind.SUSPENDED, phase is Phase.SUSPENDED, reason, message)
    elif phase in FINAL:
        yield condition(Kind.SUSPENDED, False, *WITHOUT_PODS[phase])
    else:
        yield condition(Kind.SUSPENDED, False, "NotSuspended", "spec.suspend is false")
    if phase not in FINAL:
        yield condition(Kind.COMPLETE, False, "NotOver", f"the job is {phase}")
        yield condition(Kind.FAILED, False, "NotOver", f"the job is {phase}")
    # written once, in the reconcile that ends the job; afterwards the decision has nothing new to say
    if phase in FINAL and message:
        yield condition(Kind.COMPLETE, phase is Phase.COMPLETE, reason, message)
        yield condition(Kind.FAILED, phase is Phase.FAILED, reason, message)


def _leaving(seen: Situation, role: Role, reason: str, why: str) -> Condition:
    """Of a role of which no pod is wanted. Its pods are there until they have handed over what they have."""
    left = sum(pod.role is role for pod in seen.pods)
    if left:
        return condition(KIND_OF_ROLE[role], False, "Ending", f"{left} {role} pods are ending: {why}")
    return condition(KIND_OF_ROLE[role], False, reason, f"no {role} pods: {why}")


def _role(seen: Situation, role: Role, wanted: int) -> Condition:
    kind = KIND_OF_ROLE[role]
    pods = seen.pods_of(role)
    ready = sum(pod.ready for pod in pods)
    if role is Role.LEARNER and seen.learner is None and any(pod.running for pod in pods):
        if seen.memory.phase is Phase.PENDING and not any(pod.ready for pod in pods):
            return condition(kind, False, "Starting", "the learner's pod runs; its program is starting")
        why = seen.learner_error or "it has not answered yet"
        return condition(kind, False, "NotAnswering", f"the learner's pod runs, but {why}")
    if wanted == 0:
        return condition(kind, role is not Role.ROLLOUT, "ScaledToZero", f"0 {role} pods are asked for")
    if ready >= wanted:
        return condition(kind, True, "Ready", f"{ready}/{wanted} {role} pods ready")
    reason, message = why_not(pods, wanted, role, seen.shortfalls.get(role, ""))
    return condition(kind, False, reason, message + _volume_remedy(seen, message))


def _volume_remedy(seen: Situation, message: str) -> str:
    """What to do about a learner whose volume is not made; empty for any other trouble. The words are the scheduler's."""
    told = message.lower()
    if "unbound immediate persistentvolumeclaim" not in told and not ("storageclass" in told and "not found" in told):
        return ""
    claim = names.storage(seen.job)
    named = seen.spec.learner.storage_class_name if seen.spec is not None else None
    if named is not None:
        return f". Is there a StorageClass {named} (learner.storageClassName) that makes volumes? kubectl describe pvc {claim}"
    return (
        ". A cluster without a default StorageClass makes no volume: make one the default, or make the job anew with "
        f"learner.storageClassName (kubectl get storageclass, kubectl describe pvc {claim})"
    )


def why_not(pods: list[PodView], wanted: int, role: Role, shortfall: str) -> tuple[str, str]:
    """The commonest trouble of the pods that are not ready, counted: what a human has to act on."""
    troubled = [pod for pod in pods if pod.trouble and not pod.ready]
    if troubled:
        common, _ = Counter(pod.trouble_reason for pod in troubled).most_common(1)[0]
        example = next(pod for pod in troubled if pod.trouble_reason == common)
        count = sum(pod.trouble_reason == common for pod in troubled)
        return common, f"{count}/{wanted} {role} pods {common}: {example.trouble}"
    if len(pods) < wanted and shortfall:
        return "PodsNotCreated", f"{wanted - len(pods)}/{wanted} {role} pods cannot be made: {shortfall}"
    if len(pods) < wanted:
        return "Creating", f"{len(pods)}/{wanted} {role} pods made"
    running = sum(pod.running for pod in pods)
    ready = sum(pod.ready for pod in pods)
    if running < wanted:
        return "Starting", f"{running}/{wanted} {role} pods running"
    return "Warming", f"{ready}/{wanted} {role} pods ready; the others run and load weights"


def _exact(seen: Situation) -> Condition:
    assert seen.spec is not None
    strategy = seen.spec.old_logits.strategy
    if not strategy.exact:
        text = f"{strategy} approximates old log-probs by design; Interruption, Snapshot and Dedicated are exact"
        return condition(Kind.EXACT, False, "ApproximateStrategy", text)
    if seen.learner is None or seen.learner.staleness.histogram == {}:
        return condition(
            Kind.EXACT, None, "NothingTrained", f"{strategy} is exact; the learner has told of no trained token yet"
        )
    old = seen.learner.old_logits
    if old.violations:
        text = f"{old.violations} segments contradicted their version label; see the learner's log and the runbook"
        return condition(Kind.EXACT, False, "Violated", text)
    if old.exact_coverage < 1.0:
        text = f"{old.exact_coverage:.4f} of the loss tokens have exact old log-probs, {old.fallbacks} fell back"
        text += f"; now: {old.unavailable}" if old.unavailable else ""
        return condition(Kind.EXACT, False, "Incomplete", text)
    return condition(Kind.EXACT, True, "VersionMatched", "every old log-prob is of the version that sampled its token")


def _ledger(ledger: LedgerTotals) -> Condition:
    if ledger.balanced:
        return condition(Kind.LEDGER_BALANCED, True, "Balanced", "every lease and every token is accounted for")
    tokens = ledger.tokens
    text = (
        f"leased {ledger.leased} = received {ledger.received} + expired {ledger.expired} + returned {ledger.returned} + "
        f"in flight {ledger.in_flight}; trained {ledger.trained}, discarded {sum(ledger.discarded.values())}, waiting "
        f"{ledger.waiting}; tokens sampled {tokens.sampled}, scored {tokens.scored}, discarded "
        f"{sum(tokens.discarded.values())}, unscored {tokens.unscored}"
    )
    return condition(Kind.LEDGER_BALANCED, False, "Imbalance", text)


def _environment(learner: LearnerStatus) -> Condition:
    """Whether trajectories are worth something. A few failures in a row are chance, and most of a handful says nothing yet."""
    ledger, failures = learner.ledger, learner.failures
    if not ledger.received:
        return condition(Kind.ENVIRONMENT_HEALTHY, None, "NoTrajectory", "no trajectory has come in yet")
    if failures.limit and failures.in_a_row >= max(1, failures.limit // 4):
        text = (
            f"{failing(failures)}; at {failures.limit} in a row (environment.failAfter), and at least twice as many as are under way, "
            "the job fails"
        )
        return condition(Kind.ENVIRONMENT_HEALTHY, False, "EpisodesFail", text)
    text = f"{discards(ledger)} of {ledger.received} trajectories were discarded"
    if ledger.discarded_share > MOSTLY and ledger.received >= failures.limit:
        text += f"; the newest failure: {failures.last}" if failures.last else ""
        return condition(Kind.ENVIRONMENT_HEALTHY, False, "MostlyDiscarded", text)
    return condition(Kind.ENVIRONMENT_HEALTHY, True, "EpisodesCount", text)


def _sync(seen: Situation) -> Condition:
    assert seen.spec is not None
    learner = seen.learner
    if learner is None:
        return condition(Kind.SYNC_HEALTHY, None, "NoLearner", "syncs begin when the learner answers")
    ready = ready_members(learner)
    least = SyncLimits.of(seen.spec).min_ready if seen.spec.rollout.replicas else 0  # scaled to 0 on purpose
    if ready < least and learner.update > 0:
        text = f"{ready} rollouts are members, a sync needs {least} (weightSync.minReady, at most rollout.replicas)"
        return condition(Kind.SYNC_HEALTHY, False, "TooFewRollouts", text)
    if seen.sync.error:
        return condition(Kind.SYNC_HEALTHY, False, "SyncFailing", seen.sync.error)
    if seen.learner_age is not None and seen.learner_age > LATE_SECONDS:
        text = (
            f"the learner has not answered for {seen.learner_age:.0f} s: {seen.learner_error or 'no error was given'}"
        )
        return condition(Kind.SYNC_HEALTHY, None, "LearnerSilent", text)
    if not seen.sync.running:
        return condition(Kind.SYNC_HEALTHY, None, "NoCoordinator", "the operator has not begun to coordinate syncs yet")
    if ready == 0:
        return condition(Kind.SYNC_HEALTHY, None, "NoRollouts", "no rollout has joined yet")
    return condition(Kind.SYNC_HEALTHY, True, "InSync", f"{ready} rollouts take part in syncs")


def ready_members(learner: LearnerStatus) -> int:
    """Rollouts that take part in syncs."""
    return sum(member.state == "Ready" for member in learner.members)
