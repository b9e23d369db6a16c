"""What is read from raw pods: the reason a human needs, the last words of a crash, and nothing that can raise."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.operator.builders import UID, raw_pod

from asyncppo_operator.names import Role
from asyncppo_operator.views import Termination, brief, pod_view, set_view


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "rollout", "image": "repo/x:1", "restartCount": 0, **fields}


def test_a_running_pod() -> None:
    raw = raw_pod(
        podIP="10.1.2.3",
        conditions=[{"type": "Ready", "status": "True"}],
        containerStatuses=[container(state={"running": {}})],
    )
    seen = pod_view(raw)
    assert seen is not None
    assert (seen.ip, seen.ready, seen.running, seen.trouble, seen.template_hash) == ("10.1.2.3", True, True, "", "abc")
    assert (seen.role, seen.ordinal, seen.job_uid) == (Role.ROLLOUT, 0, UID)


def test_an_unschedulable_pod_says_what_is_short() -> None:
    raw = raw_pod(
        phase="Pending",
        conditions=[
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            }
        ],
    )
    seen = pod_view(raw)
    assert seen is not None
    assert seen.trouble_reason == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in seen.trouble


def test_an_image_that_cannot_be_pulled_is_named() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "repo/x:1"'}
    seen = pod_view(raw_pod(containerStatuses=[container(state={"waiting": waiting})]))
    assert seen is not None
    assert seen.trouble_reason == "ImagePullBackOff"
    assert "repo/x:1" in seen.trouble


def test_a_crash_loop_tells_the_last_words() -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": "line 1\nCUDA out of memory", "finishedAt": "t"}
    status = container(
        restartCount=4, state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": ended}
    )
    seen = pod_view(raw_pod(containerStatuses=[status]))
    assert seen is not None
    assert seen.restarts == 4
    assert seen.last == Termination(137, "OOMKilled", "line 1 CUDA out of memory", 0, "t")
    assert "OOMKilled (exit code 137): line 1 CUDA out of memory" in seen.trouble


def test_a_clean_end_is_no_failure() -> None:
    ended = {"exitCode": 0, "reason": "Completed"}
    seen = pod_view(raw_pod(containerStatuses=[container(restartCount=1, lastState={"terminated": ended})]))
    assert seen is not None
    assert seen.last is None


def test_a_side_car_does_not_hide_the_roles_own_container() -> None:
    side = {"name": "a-proxy", "restartCount": 9, "state": {"running": {}}}
    seen = pod_view(raw_pod(containerStatuses=[side, container(restartCount=1)]))
    assert seen is not None
    assert (seen.restarts, seen.running) == (1, False)


def test_an_evicted_pod_is_disrupted() -> None:
    seen = pod_view(raw_pod(phase="Failed", reason="Evicted", message="The node was low on memory"))
    assert seen is not None
    assert seen.disrupted
    assert seen.trouble == "The node was low on memory"


def test_pods_that_are_not_ours_are_none() -> None:
    raw = raw_pod()
    raw["metadata"]["labels"] = {"asyncppo.io/role": "chef"}
    assert pod_view(raw) is None
    assert pod_view({}) is None


def test_a_long_text_keeps_its_end() -> None:
    text = brief("x" * 3000 + " the cause")
    assert len(text) == 1024
    assert text.endswith("the cause")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
STATES = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "running": MAPS,
        "waiting": st.none() | st.fixed_dictionaries({}, optional={"reason": st.text(max_size=5), "message": JSON}),
        "terminated": st.none() | st.fixed_dictionaries({}, optional={"exitCode": JSON, "message": JSON}),
    },
)
CONTAINERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["rollout", "x"])}, optional={"state": STATES, "lastState": STATES, "restartCount": JSON}
)
STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "phase": st.text(max_size=5),
        "podIP": JSON,
        "conditions": st.none() | st.lists(MAPS, max_size=2),
        "containerStatuses": st.none() | st.lists(CONTAINERS, max_size=3),
        "initContainerStatuses": st.none() | st.lists(CONTAINERS, max_size=2),
    },
)


@given(STATUSES)
def test_any_status_can_be_read(status: dict[str, Any]) -> None:
    seen = pod_view(raw_pod(**status))
    assert seen is not None
    assert bool(seen.trouble) <= bool(seen.trouble_reason)


def test_a_stateful_set() -> None:
    raw = {
        "metadata": {"name": "s", "uid": "u", "generation": 3, "labels": {"asyncppo.io/job-uid": UID}},
        "spec": {"replicas": 4},
        "status": {"replicas": 2},
    }
    seen = set_view(raw)
    assert (seen.replicas, seen.existing, seen.generation, seen.job_uid) == (4, 2, 3, UID)
    assert set_view({}).existing == 0
