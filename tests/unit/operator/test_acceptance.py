"""Which spec runs: valid ones; a running job's edits only where they may be; never an exception."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.builders import SETTINGS, raw_job

from asyncppo.api.job import AsyncPPOJob
from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.settings import Images, Settings


def accepted(**spec: Any) -> AsyncPPOJob:
    job = accept(raw_job(**spec), None, SETTINGS).job
    assert job is not None
    return job


def test_a_valid_new_job_runs_with_its_images_written_out() -> None:
    made = accept(raw_job(learner={"image": "mine:1"}), None, SETTINGS)
    assert made.accepted
    assert made.job is not None
    assert made.job.spec.learner.image == "mine:1"
    assert made.job.spec.rollout.image == SETTINGS.images.rollout


def test_a_job_on_vllm_gets_the_image_that_holds_it() -> None:
    named = {"image": "mine:1", "engine": {"type": "VLLM"}}
    assert accepted(rollout={"engine": {"type": "VLLM"}}).spec.rollout.image == SETTINGS.images.rollout_vllm
    assert accepted(rollout=named).spec.rollout.image == "mine:1"
    assert accepted(rollout={"engine": {"type": "VLLM"}}).spec.learner.image == SETTINGS.images.learner


@pytest.mark.parametrize(
    ("spec", "warned"),
    [
        ({"ttlSecondsAfterFinished": 60}, True),
        ({"ttlSecondsAfterFinished": 60, "learner": {"retainStorage": True}}, False),
        ({}, False),
    ],
)
def test_who_lets_the_job_delete_itself_is_told_that_the_model_goes_with_it(spec: dict[str, Any], warned: bool) -> None:
    made = accept(raw_job(**spec), None, SETTINGS)
    assert made.accepted
    assert ("learner.retainStorage" in made.message) is warned


def test_an_upgrade_of_the_operator_leaves_images_of_running_jobs_alone() -> None:
    before = accepted()
    newer = Settings(images=Images(learner="learner:9", rollout="rollout:9"))
    made = accept(raw_job(), before, newer)
    assert made.accepted
    assert made.job == before


def test_an_invalid_new_job_runs_nothing_and_says_all_that_is_wrong() -> None:
    made = accept(raw_job(rollout={"replicas": -1}, staleness={"maxVersion": 1}), None, SETTINGS)
    assert (made.job, made.reason) == (None, "InvalidSpec")
    assert "spec.rollout.replicas" in made.message
    assert "maxVersions" in made.message, "a misspelt field is answered with the right one"


def test_what_is_not_built_is_refused() -> None:
    made = accept(raw_job(oldLogits={"strategy": "Interruption"}, weightSync={"transport": "NCCL"}), None, SETTINGS)
    assert made.reason == "InvalidSpec"
    assert "not implemented yet" in made.message


def test_a_running_job_can_be_scaled_and_suspended() -> None:
    made = accept(raw_job(rollout={"replicas": 5}, suspend=True), accepted(), SETTINGS)
    assert made.accepted
    assert made.job is not None
    assert (made.job.spec.rollout.replicas, made.job.spec.suspend) == (5, True)


def test_a_running_job_edited_to_something_immutable_keeps_its_value_and_says_so() -> None:
    made = accept(raw_job(seed=7, rollout={"replicas": 3}), accepted(), SETTINGS)
    assert made.reason == "ImmutableField"
    assert "spec.seed" in made.message
    assert made.job is not None
    assert made.job.spec.seed == 0
    assert made.job.spec.rollout.replicas == 3, "what may change still does"


def test_a_running_job_edited_to_something_invalid_can_still_be_suspended() -> None:
    broken = raw_job(suspend=True)
    broken["spec"]["algorithm"] = {"updates": "many"}
    made = accept(broken, accepted(), SETTINGS)
    assert made.reason == "InvalidSpec"
    assert made.job is not None
    assert made.job.spec.suspend
    assert made.job.spec.algorithm.updates == 10


def test_updates_are_never_lowered() -> None:
    made = accept(raw_job(algorithm={"updates": 5}), accepted(), SETTINGS)
    assert made.reason == "ImmutableField"
    assert made.job is not None
    assert made.job.spec.algorithm.updates == 10
    raised = accept(raw_job(algorithm={"updates": 50}), accepted(), SETTINGS)
    assert raised.job is not None
    assert raised.job.spec.algorithm.updates == 50


@pytest.mark.parametrize("raw", [{}, {"metadata": None, "spec": None}, {"metadata": {}, "spec": []}])
def test_something_that_is_no_job_is_refused(raw: dict[str, Any]) -> None:
    assert accept(raw, None, SETTINGS).reason == "InvalidSpec"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.sampled_from(["", "x", "Interruption", "1Gi"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["image", "x"]), inner, max_size=2),
    max_leaves=4,
)
PATHS = st.sampled_from(
    ["suspend", "seed", "rollout", "rollout.replicas", "rollout.template", "learner.image", "learner.resources",
     "oldLogit", "oldLogits.strategy", "algorithm.updates", "staleness.maxVersions", "weightSync.minReady", "nonsense"]
)  # fmt: skip


@settings(max_examples=150)
@given(st.dictionaries(PATHS, VALUES, max_size=4))
def test_no_edit_of_a_running_job_raises_or_stops_it(edits: dict[str, Any]) -> None:
    raw = raw_job()
    for path, value in edits.items():
        node = raw["spec"]
        *parents, last = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node[last] = value
    before = accepted()
    made = accept(raw, before, SETTINGS)
    assert made.job is not None
    assert made.accepted or made.message
    assert made.job.spec.seed == before.spec.seed
    assert made.job.spec.old_logits == before.spec.old_logits
