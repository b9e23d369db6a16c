"""What Auto takes: from the spec alone, exact, once for a job, and the same for runner and operator."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.estimate.builders import job
from tests.unit.operator.builders import SETTINGS, raw_job

from asyncppo.api.changes import changes_refused
from asyncppo.api.correction import Scoring, Strategy
from asyncppo.api.implemented import built_values
from asyncppo.api.manifest import dump_manifest, load_manifest
from asyncppo.errors import UserError
from asyncppo.estimate.choice import choose, reason, settled
from asyncppo.estimate.costs import estimate
from asyncppo.estimate.speeds import assumed, read_speeds
from asyncppo.estimate.workload import workload
from asyncppo.local.prepare import Request, prepared
from asyncppo.wire.client import WireClient
from asyncppo_operator.plan.acceptance import accept

AUTO = {"oldLogits__strategy": "Auto"}
GPU = {"limits": {"nvidia.com/gpu": 1}}


async def no_coordinator(client: WireClient, learner: str, job: object) -> None:
    raise AssertionError("nothing is run here")


@settings(max_examples=60)
@given(
    bound=st.integers(0, 8),
    name=st.sampled_from(["a/a-135M", "a/a-4B", "a/a-30B-A3B", "a/a"]),
    concurrency=st.integers(1, 512),
    workers=st.integers(0, 2),
    storage=st.sampled_from(["1Gi", "100Gi", "10Ti"]),
    gpu=st.booleans(),
)
def test_it_takes_an_exact_route_that_none_beats(
    bound: int, name: str, concurrency: int, workers: int, storage: str, gpu: bool
) -> None:
    made = job(
        **AUTO,
        model={"pretrained": name},
        staleness__maxVersions=bound,
        rollout__concurrency=concurrency,
        oldLogit__replicas=workers,
        learner__storage=storage,
        learner__resources=GPU if gpu else {},
    )
    choice, after = choose(made.spec), settled(made)
    assert choice == choose(made.spec)
    assert choice.route.strategy.exact
    assert choice.route.strategy.value in built_values("oldLogits.strategy")
    assert (after.spec.old_logits.strategy, after.spec.old_logits.scoring) == (
        choice.route.strategy,
        choice.route.scoring,
    )
    assert load(after) == after, "what is settled is a valid job"
    found = workload(made.spec)
    [taken] = estimate(found, assumed(found), [choice.route])
    for other in estimate(found, assumed(found)):
        possible = other.route.strategy.exact and not other.obstacle and other.route.strategy is not Strategy.DEDICATED
        if possible and (other.route.strategy is not Strategy.SNAPSHOT or other.route.medium is found.medium):
            assert taken.update <= other.update * 1.011
    assert choice.route.label in choice.reason


def load(made: object) -> object:
    from asyncppo.api.manifest import parse_manifest

    return parse_manifest(json.loads(dump_manifest(made)), "settled", lenient=True)  # type: ignore[arg-type]


def test_it_keeps_nothing_where_the_learner_is_waited_for_and_stalls_nobody_where_sampling_is() -> None:
    assert settled(job(**AUTO)).spec.old_logits.scoring is Scoring.BARRIER
    sampling = job(
        **AUTO,
        model={"pretrained": "a/a-4B"},
        sampling={"maxTokens": 4096, "contextLength": 16384},
        learner__resources={"limits": {"nvidia.com/gpu": 8}},
        rollout__resources=GPU,
    )
    assert settled(sampling).spec.old_logits.scoring is Scoring.OVERLAPPED


def test_any_other_strategy_is_left_alone() -> None:
    made = job(oldLogits__strategy="EWMA")
    assert settled(made) is made
    assert reason(made) == ""


def test_a_choice_never_changes_during_a_job() -> None:
    before = settled(job(**AUTO, staleness__maxVersions=0))
    later = job(**AUTO, staleness__maxVersions=0, rollout__concurrency=4096, learner__resources=GPU)
    kept = settled(later, before)
    assert kept.spec.old_logits == before.spec.old_logits
    assert changes_refused(before.spec, kept.spec) == []


def test_workers_that_are_not_taken_are_not_started() -> None:
    made = settled(job(**AUTO, oldLogit__replicas=2))
    dedicated = made.spec.old_logits.strategy is Strategy.DEDICATED
    assert made.spec.old_logit.replicas == (2 if dedicated else 0)


def test_runner_and_operator_take_the_same_and_record_why(tmp_path: Path) -> None:
    made = accept(raw_job(oldLogits={"strategy": "Auto"}), None, SETTINGS)
    assert made.job is not None
    again = accept(raw_job(oldLogits={"strategy": "Auto"}, rollout={"replicas": 9}), made.job, SETTINGS)
    assert again.accepted
    assert again.job is not None
    assert again.job.spec.old_logits == made.job.spec.old_logits
    manifest = tmp_path / "job.json"
    raw = raw_job(oldLogits={"strategy": "Auto"})
    manifest.write_text(
        json.dumps({key: raw[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "guess"}})
    )
    with prepared(Request(load_manifest(manifest), tmp_path, tmp_path / "out"), no_coordinator) as run:
        assert run.job.spec.old_logits == made.job.spec.old_logits
        first = run.folder.choice_file.read_text().strip()
    assert first == made.choice
    with prepared(Request(load_manifest(manifest), tmp_path, tmp_path / "out", resume=True), no_coordinator) as run:
        assert run.job.spec.old_logits == made.job.spec.old_logits
        assert run.folder.choice_file.read_text().strip() == first


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is not a file of speeds"), ("{}", "is not a file of speeds"), (None, "cannot be read")],
)
def test_bad_speeds_are_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "speeds.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_speeds(path)


def test_speeds_of_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    figures = dict.fromkeys(("forward", "worker", "train", "decode", "prefill", "copy", "disk", "pull"), 1.0) | {
        "decode": 0.0
    }
    path.write_text(json.dumps(figures))
    with pytest.raises(UserError, match="decode must be above 0"):
        read_speeds(path)
