"""Every condition in every phase says what is: the table, and that nothing of an earlier phase is left standing."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.operator.builders import NOW, answer, pod
from tests.unit.operator.test_status import PODS, RUNNING, checked, said, situation

from asyncppo.api.status import Phase
from asyncppo.report.measures import OldLogits
from asyncppo_operator.conditions import Kind, events
from asyncppo_operator.memory import Memory
from asyncppo_operator.names import Role
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.situation import Situation
from asyncppo_operator.views import PodView

ENDED = {"started": NOW, "completed": NOW, "updates": 10}
LEAVING = tuple(replace(one, deleting=True, ready=False) for one in PODS)
UNMADE = tuple(replace(one, ready=False, running=False) for one in PODS)


def at(phase: Phase, pods: tuple[PodView, ...]) -> Situation:
    """A job in this phase, some time after it came there."""
    match phase:
        case Phase.INVALID:
            return situation(spec={"rollout": {"replicas": -1}}, pods=pods)
        case Phase.PENDING:
            return situation(None, pods, Memory())
        case Phase.RUNNING:
            return situation(answer(), pods)
        case Phase.RECOVERING:
            return situation(None, pods, Memory(phase, started=NOW))
        case Phase.SUSPENDING:
            memory = Memory(phase, suspending=NOW)
            return situation(answer(), pods, memory, seconds=5, spec={"suspend": True})
        case Phase.SUSPENDED:
            return situation(None, pods, Memory(phase), spec={"suspend": True})
        case _:
            return situation(None, pods, Memory(phase, **ENDED), seconds=60)


# phase, its pods → each condition, of a job that trained well before. Ordered as in `Kind`; a dash: not said of such a job.
TABLE: list[tuple[Phase, tuple[PodView, ...], list[str]]] = [
    # Ready, Accepted, Reconciled, Learner, Rollouts, Sync, Exact, Ledger, Environment, Suspended, Complete, Failed
    (Phase.INVALID, PODS, ["False", "False", "True", "-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    (Phase.PENDING, UNMADE, ["False", "True", "True", "False", "False", "Unknown", "True", "True", "True", "False", "False", "False"]),
    (Phase.RUNNING, PODS, ["True", "True", "True", "True", "True", "True", "True", "True", "True", "False", "False", "False"]),
    (Phase.RECOVERING, PODS[1:], ["False", "True", "True", "False", "True", "Unknown", "True", "True", "True", "False", "False", "False"]),
    (Phase.SUSPENDING, PODS, ["False", "True", "True", "True", "False", "Unknown", "True", "True", "True", "False", "False", "False"]),
    (Phase.SUSPENDED, (), ["True", "True", "True", "False", "False", "Unknown", "True", "True", "True", "True", "False", "False"]),
    (Phase.COMPLETE, PODS, ["True", "True", "True", "False", "False", "Unknown", "True", "True", "True", "False", "True", "False"]),
    (Phase.COMPLETE, (), ["True", "True", "True", "False", "False", "Unknown", "True", "True", "True", "False", "True", "False"]),
    (Phase.FAILED, (), ["False", "True", "True", "False", "False", "Unknown", "True", "True", "True", "False", "False", "True"]),
]  # fmt: skip
SHOWN = [kind for kind in Kind if kind is not Kind.OLD_LOGITS_READY]


def before(phase: Phase) -> dict[str, Any]:
    """The status of a job that trained well, and then came to its end where the phase is one."""
    running = checked(situation(answer()))
    if phase in (Phase.COMPLETE, Phase.FAILED):
        return checked(situation(answer(phase.value, update=10, message="boom")), running)
    return running


@pytest.mark.parametrize(
    ("phase", "pods", "wanted"), TABLE, ids=lambda part: str(part) if isinstance(part, Phase) else ""
)
def test_each_condition_in_each_phase(phase: Phase, pods: tuple[PodView, ...], wanted: list[str]) -> None:
    status = checked(at(phase, pods), before(phase))
    assert status["phase"] == phase
    found = {c["type"]: c["status"] for c in status["conditions"]}
    assert [found.get(kind.value, "-") for kind in SHOWN] == wanted, {
        kind.value: found.get(kind.value) for kind in SHOWN
    }
    assert checked(at(phase, pods), status) == status, "said again, it is the same"


def test_the_table_has_every_phase() -> None:
    assert {phase for phase, _, _ in TABLE} == set(Phase)


@pytest.mark.parametrize("phase", [Phase.COMPLETE, Phase.FAILED, Phase.SUSPENDED])
def test_no_pods_is_said_with_its_reason_and_is_no_warning(phase: Phase) -> None:
    was = before(phase)
    status = checked(at(phase, ()), was)
    for kind in ("LearnerReady", "RolloutsReady"):
        assert said(status, kind)[1] == f"Job{phase}"
        assert said(status, kind)[2].startswith("no ")
    assert "ready" not in said(status, "RolloutsReady")[2]
    assert [e for e in events(was, status) if "Ready" in e.message] == []


@pytest.mark.parametrize("phase", [Phase.COMPLETE, Phase.FAILED, Phase.SUSPENDED])
def test_pods_on_their_way_out_are_told(phase: Phase) -> None:
    status = checked(at(phase, LEAVING), before(phase))
    assert said(status, "RolloutsReady")[1] == "Ending"
    assert said(status, "RolloutsReady")[2].startswith("2 rollout pods are ending")
    assert status["rollouts"]["ending"] == 2
    assert status["rollouts"]["summary"] == "0/0 (2 ending)"


def test_the_column_counts_pods_that_drain() -> None:
    draining = at(Phase.SUSPENDING, PODS)
    assert draining.decision is not None
    assert draining.decision.target is Target.DRAIN
    assert checked(draining)["rollouts"]["summary"] == "0/0 (2 ending)"
    assert checked(situation(answer()))["rollouts"]["summary"] == "2/2"
    scaled = situation(answer(), spec={"rollout": {"replicas": 1}})
    assert checked(scaled)["rollouts"]["summary"] == "1/1 (1 ending)"
    renewed = situation(answer(), (PODS[0], *LEAVING[1:]))
    assert checked(renewed)["rollouts"]["summary"] == "0/2 (2 ending)"


@pytest.mark.parametrize(
    ("seen", "reason", "words"),
    [
        (situation(None, UNMADE, Memory()), "Starting", "LearnerReady"),
        (situation(answer(), PODS[:2]), "Creating", "RolloutsReady: 1/2"),
        (situation(None, PODS, seconds=90, learner_error="refused"), "NotAnswering", "refused"),
    ],
)
def test_ready_says_what_is_missing(seen: Situation, reason: str, words: str) -> None:
    status, found, message = said(checked(seen), "Ready")
    assert (status, found) == ("False", reason)
    assert words in message


def test_an_approximate_strategy_is_ready() -> None:
    old = OldLogits(strategy="Recompute", exact=False)
    status = checked(situation(answer(old_logits=old), spec={"oldLogits": {"strategy": "Recompute"}}))
    assert said(status, "Ready")[0] == "True"


UNBOUND = (
    "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/3 nodes are available"
)


@pytest.mark.parametrize(
    ("trouble", "learner", "words"),
    [
        (UNBOUND, {}, "learner.storageClassName"),
        (UNBOUND, {}, "guess-learner-data"),
        ("running PreBind plugin: 1 pod has unbound immediate PersistentVolumeClaims", {}, "learner.storageClassName"),
        (UNBOUND, {"storageClassName": "fast"}, "StorageClass fast (learner.storageClassName)"),
        ('storageclass.storage.k8s.io "fast" not found', {"storageClassName": "fast"}, "StorageClass fast"),
    ],
)
def test_a_volume_that_is_not_made_names_its_field(trouble: str, learner: dict[str, Any], words: str) -> None:
    pending = replace(pod(Role.LEARNER), ready=False, running=False, trouble_reason="Unschedulable", trouble=trouble)
    status = checked(situation(None, (pending,), Memory(), spec={"learner": learner}))
    assert words in said(status, "LearnerReady")[2]
    assert words in status["message"]


def test_other_trouble_names_no_storage_class() -> None:
    pending = replace(pod(Role.LEARNER), ready=False, running=False, trouble_reason="Unschedulable", trouble="no gpu")
    assert "storageClass" not in said(checked(situation(None, (pending,), Memory())), "LearnerReady")[2]


def waiting(count: int) -> Situation:
    """A job of two rollouts, so many of which cannot be scheduled; the others were made just now."""
    trouble = {"ready": False, "running": False, "trouble_reason": "Unschedulable", "trouble": "no gpu"}
    rollouts = tuple(
        replace(one, **trouble) if one.ordinal < count else replace(one, ready=False, running=False) for one in PODS[1:]
    )
    return situation(answer(), (PODS[0], *rollouts))


def test_an_event_that_counts_pods_follows_their_number() -> None:
    one = checked(waiting(1))
    first = [e for e in events(checked(situation(answer())), one) if e.reason == "Unschedulable"]
    two = checked(waiting(2), one)
    second = [e for e in events(one, two) if e.reason == "Unschedulable"]
    assert [e.message[:19] for e in (*first, *second)] == ["RolloutsReady: 1/2 ", "RolloutsReady: 2/2 "]
    assert first[0].about == second[0].about != "", "the second takes the first one's place"
    assert events(two, checked(waiting(2), two)) == []


def test_a_run_that_goes_on_is_no_longer_complete() -> None:
    complete = checked(at(Phase.COMPLETE, ()), before(Phase.COMPLETE))
    more = situation(None, (), Memory(Phase.COMPLETE, **ENDED), seconds=60, spec={"algorithm": {"updates": 20}})
    status = checked(more, complete)
    assert status["phase"] == "Pending"
    assert said(status, "Complete")[:2] == ("False", "NotOver")
    assert said(status, "Ready")[0] == "False"
    assert "completionTime" not in status


def test_a_learner_told_of_more_updates_too_late_says_that_it_starts_again() -> None:
    told = situation(answer("Complete", update=10), memory=RUNNING, spec={"algorithm": {"updates": 20}})
    status = checked(told)
    assert status["phase"] == "Recovering"
    assert said(status, "LearnerReady")[1] == "Ending"
    assert "go on to 20" in status["message"]
    assert said(status, "Complete")[0] == "False"
