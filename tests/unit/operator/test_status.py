"""The status tells the truth: what is wrong and who has to act, figures as they are, events once per transition."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.builders import NOW, SETTINGS, answer, crash, pod, raw_job

from asyncppo.api.status import JobStatus, Phase
from asyncppo.report.measures import Failures, LearnerStatus, Learning, LedgerTotals, MemberView, OldLogits
from asyncppo_operator.conditions import events
from asyncppo_operator.memory import Failure, Memory
from asyncppo_operator.names import Role
from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.plan.lifecycle import Target, decide
from asyncppo_operator.plan.planner import replicas, roles
from asyncppo_operator.settings import Timing
from asyncppo_operator.situation import Problem, Situation, SyncReport
from asyncppo_operator.status import significant, summarize
from asyncppo_operator.views import PodView

RUNNING = Memory(Phase.RUNNING, started=NOW)
PODS = (pod(Role.LEARNER), pod(Role.ROLLOUT, 0), pod(Role.ROLLOUT, 1))


def situation(
    learner: LearnerStatus | None = None,
    pods: tuple[PodView, ...] = PODS,
    memory: Memory = RUNNING,
    seconds: float = 0.0,
    spec: dict[str, Any] | None = None,
    **more: Any,
) -> Situation:
    """A job in the middle of its life, decided upon."""
    acceptance = accept(raw_job(**(spec or {})), None, SETTINGS)
    job = acceptance.job
    now = NOW + timedelta(seconds=seconds)
    decision = None if job is None else decide(job.spec, memory, learner, pods, now, Timing())
    usual: dict[str, Any] = {
        "job": "guess",
        "generation": 1,
        "now": now,
        "acceptance": acceptance,
        "memory": memory,
        "decision": decision,
        "spec": job.spec if job else None,
        "desired": {r: replicas(job, r, decision.target) for r in roles(job)} if job and decision else {},
        "pods": pods,
        "learner": learner,
        "learner_age": 1.0 if learner else None,
        "sync": SyncReport(running=learner is not None),
    }
    return Situation(**(usual | more))


def said(status: dict[str, Any], kind: str) -> tuple[str, str, str]:
    found = {c["type"]: c for c in status["conditions"]}[kind]
    return found["status"], found["reason"], found["message"]


def checked(seen: Situation, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The status, and that the API's model of it (and so the CRD) carries every field. An empty text is nothing that every server takes."""
    status = summarize(seen, before or {})
    JobStatus.model_validate_json(json.dumps(status), strict=True)
    assert list(empty(status)) == []
    return status


def empty(node: Any, path: str = "status") -> Iterator[str]:
    """Where there is an empty text, or null."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from empty(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from empty(value, path)
    elif node in (None, ""):
        yield path


def test_a_good_run() -> None:
    status = checked(situation(answer()))
    assert status["phase"] == "Running"
    assert status["message"] == "update 3 of 10, about 70 s left"
    assert status["progress"]["summary"] == "3/10"
    assert status["versions"] == {"learner": 3, "oldestRollout": 2, "newestRollout": 3, "skew": 1, "members": 2}
    assert status["staleness"] == {"mean": 0.5, "max": 1, "bound": 2, "summary": "0.50 (max 1)"}
    assert status["rollouts"]["summary"] == "2/2"
    assert status["rollouts"]["selector"] == "asyncppo.io/job=guess,asyncppo.io/role=rollout"
    assert said(status, "Exact")[:2] == ("True", "VersionMatched")
    assert said(status, "LedgerBalanced")[0] == "True"
    assert said(status, "SyncHealthy")[:2] == ("True", "InSync")


def test_pods_that_wait_are_counted_with_their_reason() -> None:
    waiting = [
        replace(pod(Role.ROLLOUT, n), ready=False, running=False, trouble_reason="Unschedulable", trouble="no gpu")
        for n in (2, 3)
    ]
    status = checked(situation(answer(), (*PODS, *waiting), spec={"rollout": {"replicas": 4}}))
    assert said(status, "RolloutsReady") == ("False", "Unschedulable", "2/4 rollout pods Unschedulable: no gpu")
    assert status["message"] == "2/4 rollout pods Unschedulable: no gpu"
    assert status["rollouts"]["summary"] == "2/4"


def test_pods_that_cannot_be_made_say_why() -> None:
    seen = situation(None, (), Memory(), shortfalls={Role.LEARNER: "exceeded quota: pods=0"})
    assert said(checked(seen), "LearnerReady") == (
        "False",
        "PodsNotCreated",
        "1/1 learner pods cannot be made: exceeded quota: pods=0",
    )


def test_a_learner_that_runs_but_does_not_answer_says_so() -> None:
    status = checked(situation(None, learner_error="http://10.0.0.1:8080 does not answer: refused"))
    assert status["phase"] == "Recovering"
    assert said(status, "LearnerReady")[1] == "NotAnswering"
    assert "refused" in status["message"]


def test_an_approximate_strategy_is_labelled_and_is_no_alarm() -> None:
    old = OldLogits(strategy="Recompute", exact=False)
    status = checked(situation(answer(old_logits=old), spec={"oldLogits": {"strategy": "Recompute"}}))
    assert said(status, "Exact")[:2] == ("False", "ApproximateStrategy")
    assert status["oldLogits"]["summary"] == "No"
    assert status["message"].startswith("update 3")


@pytest.mark.parametrize(
    ("old", "reason"),
    [
        (OldLogits(strategy="Interruption", exact=True, exact_coverage=1.0, violations=2), "Violated"),
        (OldLogits(strategy="Interruption", exact=True, exact_coverage=0.98), "Incomplete"),
    ],
)
def test_lost_exactness_is_told(old: OldLogits, reason: str) -> None:
    status = checked(situation(answer(old_logits=old)))
    assert said(status, "Exact")[:2] == ("False", reason)


def test_an_imbalanced_ledger_shows_its_books() -> None:
    status = checked(situation(answer(ledger=LedgerTotals(leased=5, received=3, trained=3))))
    assert said(status, "LedgerBalanced")[0] == "False"
    assert "leased 5 = received 3" in status["message"]


def test_too_few_rollouts_for_a_sync() -> None:
    status = checked(situation(answer(members=[MemberView(name="x", incarnation=1, state="Joining", version=-1)])))
    assert said(status, "SyncHealthy")[:2] == ("False", "TooFewRollouts")


def test_a_failing_sync_is_told() -> None:
    status = checked(situation(answer(), sync=SyncReport(running=True, error="guess-rollout-1 did not pause")))
    assert said(status, "SyncHealthy") == ("False", "SyncFailing", "guess-rollout-1 did not pause")


def test_an_invalid_spec_makes_an_invalid_job() -> None:
    status = checked(situation(spec={"rollout": {"replicas": -1}}))
    assert status["phase"] == "Invalid"
    assert said(status, "Accepted")[:2] == ("False", "InvalidSpec")
    assert "spec.rollout.replicas" in status["message"]


def test_a_problem_of_the_operator_is_told_on_the_job() -> None:
    seen = situation(answer(), problem=Problem("Forbidden", "cannot create statefulsets in lab"))
    status = checked(seen)
    assert said(status, "Reconciled") == ("False", "Forbidden", "cannot create statefulsets in lab")
    assert status["message"] == "cannot create statefulsets in lab"


def test_a_job_seen_for_the_first_time_claims_nothing() -> None:
    assert said(checked(situation(None, (), Memory(), settled=False)), "Reconciled")[:2] == ("Unknown", "Reconciling")


def test_a_failed_job_keeps_the_root_cause() -> None:
    cause = Failure("rollout", "guess-rollout-1", "OOMKilled", "OOMKilled (exit code 137)", "t")
    memory = Memory(Phase.RUNNING, started=NOW, failures={"rollout": 4}, first_failure=cause)
    status = checked(situation(answer(), memory=memory))
    assert status["phase"] == "Failed"
    assert said(status, "Failed")[1] == "BackoffLimitExceeded"
    assert "guess-rollout-1: OOMKilled" in status["message"]
    assert status["firstFailure"]["pod"] == "guess-rollout-1"


def test_the_end_keeps_its_last_figures_and_its_message() -> None:
    end = checked(situation(answer("Complete", update=10)))
    assert end["message"] == "10 of 10 updates done"
    later = checked(situation(None, (), Memory(Phase.COMPLETE, started=NOW, completed=NOW), seconds=60), end)
    for key in ("progress", "reward", "ledger", "oldLogits", "message", "completionTime"):
        assert later[key] == end[key]
    assert said(later, "Complete")[0] == "True"
    assert said(later, "Failed")[0] == "False"


def test_a_suspended_job_says_so_and_not_that_pods_are_missing() -> None:
    memory = Memory(Phase.SUSPENDED)
    status = checked(situation(None, (), memory, spec={"suspend": True}))
    assert (status["phase"], said(status, "Suspended")[0]) == ("Suspended", "True")
    assert "no pods" in status["message"]


def test_transition_times_move_only_with_the_status() -> None:
    one = checked(situation(answer()))
    two = checked(situation(answer(), seconds=60), one)
    assert [c["lastTransitionTime"] for c in one["conditions"]] == [c["lastTransitionTime"] for c in two["conditions"]]
    three = checked(situation(None, seconds=90), two)
    times = {c["type"]: c["lastTransitionTime"] for c in three["conditions"]}
    assert times["LearnerReady"] == "2026-01-02T03:05:35Z"
    assert times["Accepted"] == "2026-01-02T03:04:05Z"


def test_figures_alone_are_not_significant() -> None:
    one = checked(situation(answer()))
    assert not significant(one, checked(situation(answer(update=4, version=4, eta_seconds=60.0), seconds=3), one))
    assert significant(one, checked(situation(None), one))
    assert significant(one, checked(replace(situation(answer()), generation=2), one))


def test_each_transition_makes_one_event_and_progress_makes_none() -> None:
    new = checked(situation(None, (), Memory(), settled=False))
    first = events({}, new)
    assert [(e.reason, e.warning) for e in first] == [("Accepted", False)]
    running = checked(situation(answer()), new)
    assert "Running" in [e.reason for e in events(new, running)]
    assert events(running, checked(situation(answer(update=5), seconds=9), running)) == []
    away = checked(situation(None), running)
    assert [(e.reason, e.warning) for e in events(running, away) if e.reason == "Recovering"] == [("Recovering", True)]


def test_making_pods_is_no_warning() -> None:
    starting = tuple(replace(p, ready=False, running=False) for p in PODS)
    status = checked(situation(None, starting, Memory()))
    assert said(status, "RolloutsReady")[1] == "Starting"
    assert not [e for e in events({}, status) if e.warning]


@settings(max_examples=150)
@given(
    st.none() | st.sampled_from(["Starting", "Running", "Complete", "Failed"]).map(answer),
    st.lists(
        st.builds(
            lambda role, n, ready, trouble, restarts: replace(
                pod(role, n),
                ready=ready,
                running=ready,
                trouble_reason=trouble,
                trouble=trouble,
                restarts=restarts,
                last=crash() if restarts else None,
            ),
            st.sampled_from([Role.LEARNER, Role.ROLLOUT]),
            st.integers(0, 3),
            st.booleans(),
            st.sampled_from(["", "Unschedulable", "ImagePullBackOff"]),
            st.integers(0, 3),
        ),
        max_size=5,
    ).map(tuple),
    st.sampled_from(Phase),
    st.booleans(),
    st.booleans(),
)
def test_any_situation_makes_a_status_the_crd_carries(
    learner: LearnerStatus | None, pods: tuple[PodView, ...], phase: Phase, suspend: bool, settled: bool
) -> None:
    memory = Memory(phase, started=NOW, completed=NOW)
    seen = situation(learner, pods, memory, spec={"suspend": suspend}, settled=settled)
    status = checked(seen)
    assert checked(seen, status) == status, "said again, it is the same"
    assert seen.decision is not None
    assert seen.decision.target in Target


@pytest.mark.parametrize(("coverage", "shown"), [(1.0, "100%"), (0.99999, "99.99%"), (0.5, "50%"), (0.0, "0%")])
def test_the_exact_column_is_never_rounded_up(coverage: float, shown: str) -> None:
    status = checked(
        situation(answer(old_logits=OldLogits(strategy="Interruption", exact=True, exact_coverage=coverage)))
    )
    assert status["oldLogits"]["summary"] == shown


FAILING = Failures(
    in_a_row=20, limit=64, reason="environment_error", count=20, example="OSError: gone", last="OSError: gone"
)


@pytest.mark.parametrize(
    ("changes", "status", "reason", "words"),
    [
        ({"ledger": LedgerTotals()}, "Unknown", "NoTrajectory", "no trajectory"),
        ({}, "True", "EpisodesCount", "of 8 trajectories were discarded"),
        ({"failures": FAILING}, "False", "EpisodesFail", "OSError: gone; at 64 in a row (environment.failAfter)"),
        ({"failures": Failures(in_a_row=3, limit=64, reason="empty", count=3)}, "True", "EpisodesCount", "0%"),
        (
            {
                "ledger": LedgerTotals(leased=100, received=100, waiting=25, discarded={"environment_error": 75}),
                "failures": Failures(limit=64, last="KeyError: 'x'"),
            },
            "False",
            "MostlyDiscarded",
            "75.0% (environment_error) of 100 trajectories were discarded; the newest failure: KeyError: 'x'",
        ),
    ],
)
def test_an_environment_that_fails_is_told_before_the_job_ends(
    changes: dict[str, Any], status: str, reason: str, words: str
) -> None:
    ledger = {"ledger": LedgerTotals(leased=8, received=8, waiting=8)} | changes
    told = checked(situation(answer(**ledger)))
    found = said(told, "EnvironmentHealthy")
    assert found[:2] == (status, reason)
    assert words in found[2]
    if status == "False":
        assert told["message"] == found[2]


def test_discards_and_notes_are_in_the_status() -> None:
    lost = LedgerTotals(leased=4, received=4, waiting=1, discarded={"stale": 1, "environment_error": 2})
    status = checked(situation(answer(ledger=lost, notes=["the Linear schedule now ends at update 6"])))
    assert (status["ledger"]["discardedShare"], status["ledger"]["discardedReason"]) == (0.75, "environment_error")
    assert status["notes"] == ["the Linear schedule now ends at update 6"]
    assert "notes" not in checked(situation(answer()), status), "a note of an earlier start"


def test_a_run_that_learnt_nothing_says_so_when_it_is_complete() -> None:
    nothing = Learning(updates=10, idle_updates=10, groups=20, zero_variance_groups=20)
    status = checked(situation(answer(phase="Complete", update=10, learning=nothing)))
    assert said(status, "Complete")[0] == "True"
    assert "10 of 10 updates done; nothing was learnt from rewards" in said(status, "Complete")[2]
