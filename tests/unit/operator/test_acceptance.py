"""Which spec runs: valid ones; a running job's edits only where they may be; never an exception."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.operator.builders import SETTINGS, raw_job

from asyncppo.api.changes import CHANGEABLE
from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.roles import Resources
from asyncppo.api.status import Phase
from asyncppo_operator.plan.acceptance import AFTER_THE_END, Ended, accept
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


def test_what_is_doubtful_is_accepted_with_a_warning() -> None:
    assert accept(raw_job(), None, SETTINGS).message == "the spec is valid"
    small = {"learningRate": 2e-6, "precision": "BFloat16"}
    made = accept(raw_job(optimizer=small), None, SETTINGS)
    assert made.accepted
    assert made.message.startswith("the spec is valid; warning: spec.optimizer.precision")
    assert made.job is not None
    again = accept(raw_job(optimizer=small), made.job, SETTINGS)
    assert again.message == made.message


def test_what_is_not_built_is_refused() -> None:
    made = accept(raw_job(oldLogits={"strategy": "Interruption"}, weightSync={"transport": "NCCL"}), None, SETTINGS)
    assert made.reason == "InvalidSpec"
    assert "not implemented yet" in made.message


def test_a_job_accepted_before_a_refusal_was_known_runs_on_and_says_so() -> None:
    """After an upgrade of the operator: the learner has GPUs, which are refused now."""
    gpus = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    plain = accepted()
    before = plain.model_copy(
        update={
            "spec": plain.spec.model_copy(
                update={
                    "learner": plain.spec.learner.model_copy(
                        update={"resources": Resources(limits={"nvidia.com/gpu": 1})}
                    )
                }
            )
        }
    )
    made = accept(raw_job(learner=gpus), before, SETTINGS)
    assert (made.reason, made.job) == ("InvalidSpec", before)
    assert "not implemented yet" in made.message
    scaled = accept(raw_job(learner=gpus, rollout={"replicas": 5}, suspend=True), before, SETTINGS).job
    assert scaled is not None
    assert (scaled.spec.rollout.replicas, scaled.spec.suspend) == (5, True)
    mended = accept(raw_job(), before, SETTINGS)
    assert (mended.reason, mended.job) == ("Accepted", plain)


def test_a_running_job_gets_no_devices_that_nothing_uses() -> None:
    made = accept(raw_job(learner={"resources": {"limits": {"nvidia.com/gpu": 1}}}), accepted(), SETTINGS)
    assert made.reason == "InvalidSpec"
    assert made.job == accepted()
    overlay = {"spec": {"containers": [{"name": "learner", "resources": {"limits": {"amd.com/gpu": 1}}}]}}
    assert accept(raw_job(learner={"template": overlay}), accepted(), SETTINGS).job == accepted()


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


COMPLETE, FAILED = Ended(Phase.COMPLETE, 10), Ended(Phase.FAILED, 4)
EDITS: dict[str, dict[str, Any]] = {
    "suspend": {"suspend": True},
    "activeDeadlineSeconds": {"activeDeadlineSeconds": 300},
    "backoffLimit": {"backoffLimit": 9},
    "labels": {"labels": {"team": "a"}},
    "annotations": {"annotations": {"team": "a"}},
    "algorithm.updates": {"algorithm": {"updates": 20}},
    "optimizer.microBatchTokens": {"optimizer": {"microBatchTokens": 4096}},
    "weightSync.pauseTimeoutSeconds": {"weightSync": {"pauseTimeoutSeconds": 9}},
    "weightSync.loadTimeoutSeconds": {"weightSync": {"loadTimeoutSeconds": 9}},
    "weightSync.minReady": {"weightSync": {"minReady": 2}},
    "reward.bound": {"reward": {"bound": 10.0}},
    "learner.adoptStorage": {"learner": {"adoptStorage": True}},
    "learner.image": {"learner": {"image": "mine:1"}},
    "learner.resources": {"learner": {"resources": {"limits": {"cpu": 1}}}},
    "learner.template": {"learner": {"template": {"spec": {"priority": 1}}}},
    "learner.threads": {"learner": {"threads": 2}},
    "rollout.image": {"rollout": {"image": "mine:1"}},
    "rollout.resources": {"rollout": {"resources": {"limits": {"cpu": 1}}}},
    "rollout.template": {"rollout": {"template": {"spec": {"priority": 1}}}},
    "rollout.replicas": {"rollout": {"replicas": 4}},
    "rollout.concurrency": {"rollout": {"concurrency": 4}},
    "rollout.engine.tensorParallel": {},
    "rollout.engine.kvCacheBytes": {"rollout": {"engine": {"kvCacheBytes": 1 << 27}}},
    "rollout.engine.threads": {"rollout": {"engine": {"threads": 2}}},
    "oldLogit": {"oldLogit": {"threads": 2}},
    "checkpoint": {"checkpoint": {"keep": 5}},
}  # fmt: skip
"""One edit of each field that may change; tensorParallel is of vLLM alone."""


def test_the_table_of_edits_has_every_field_that_may_change() -> None:
    assert set(EDITS) | set(AFTER_THE_END) == set(CHANGEABLE)


@pytest.mark.parametrize("ended", [COMPLETE, FAILED], ids=["Complete", "Failed"])
@pytest.mark.parametrize("path", [path for path in EDITS if EDITS[path]])
def test_an_edit_of_a_finished_job_is_followed_or_said_to_do_nothing(path: str, ended: Ended) -> None:
    ran = accepted()
    made = accept(raw_job(**EDITS[path]), ran, SETTINGS, ended)
    if path == "algorithm.updates" and ended.phase is Phase.COMPLETE:
        assert (made.reason, "from update 10 to 20" in made.message) == ("Accepted", True)
        assert made.job is not None
        assert made.job.spec.algorithm.updates == 20
        return
    assert (made.reason, made.accepted, made.job) == ("JobFinished", False, ran)
    assert f"spec.{path}" in made.message
    assert f"after the job was {ended.phase}" in made.message
    assert "nothing happens" in made.message
    assert accept(raw_job(), ran, SETTINGS, ended).accepted, "taken back, all is well"


@pytest.mark.parametrize("ended", [COMPLETE, FAILED], ids=["Complete", "Failed"])
def test_a_finished_job_still_follows_what_becomes_of_it(ended: Ended) -> None:
    ran = accepted()
    made = accept(raw_job(ttlSecondsAfterFinished=60, learner={"retainStorage": True}), ran, SETTINGS, ended)
    assert made.accepted
    assert made.job is not None
    assert (made.job.spec.ttl_seconds_after_finished, made.job.spec.learner.retain_storage) == (60, True)
    both = accept(raw_job(ttlSecondsAfterFinished=60, activeDeadlineSeconds=5), ran, SETTINGS, ended)
    assert both.reason == "JobFinished"
    assert both.job is not None
    assert both.job.spec.ttl_seconds_after_finished == 60
    assert both.job.spec.active_deadline_seconds is None
    again = accept(raw_job(ttlSecondsAfterFinished=60, activeDeadlineSeconds=5), both.job, SETTINGS, ended)
    assert again == both, "an operator that judges it anew says the same"


def test_a_run_that_goes_on_takes_all_changes_with_it() -> None:
    edits = raw_job(algorithm={"updates": 20}, rollout={"replicas": 4})
    made = accept(edits, accepted(), SETTINGS, COMPLETE)
    assert made.job is not None
    assert (made.reason, made.job.spec.rollout.replicas) == ("Accepted", 4)


def test_a_run_whose_volume_is_gone_does_not_go_on() -> None:
    ran = accepted()
    made = accept(raw_job(algorithm={"updates": 20}), ran, SETTINGS, Ended(Phase.COMPLETE, 10, storage=False))
    assert (made.reason, made.job) == ("JobFinished", ran)
    assert "volume" in made.message


@pytest.mark.parametrize("edit", [{"seed": 7, "suspend": True}, {"rollout": {"replicas": -1}, "suspend": True}])
def test_a_refused_edit_of_a_finished_job_changes_nothing(edit: dict[str, Any]) -> None:
    ran = accepted()
    made = accept(raw_job(**edit), ran, SETTINGS, COMPLETE)
    assert made.job == ran
    assert not made.accepted
    assert "runs on" not in made.message


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
