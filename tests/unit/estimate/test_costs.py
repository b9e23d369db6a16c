"""The cost model against closed forms by hand, and in the directions it must go."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.estimate.builders import job

from asyncppo.api.correction import SnapshotMedium
from asyncppo.estimate.costs import ROUTES, Estimate, estimate, loading_seconds, sampling_seconds, scoring_tokens
from asyncppo.estimate.speeds import Speeds, assumed
from asyncppo.estimate.workload import Known, Workload, amount, builtin_parameters, workload

LOAD = Workload(
    parameters=1e9,
    active=1e9,
    origin="by hand",
    batch=100,
    tokens=1000.0,
    sampled=500.0,
    bound=4,
    rollouts=2,
    concurrency=100,
    workers=1,
    train_bytes=4,
    engine_bytes=2,
    medium=SnapshotMedium.DISK,
    checkpoints=2,
    memory=None,
    storage=None,
    accelerators=1,
    engine_accelerators=1,
    worker_accelerators=1,
    tool_seconds=10.0,
)
SPEEDS = Speeds(
    forward=1e5,
    worker=5e4,
    train=2e4,
    decode=1e4,
    prefill=1e5,
    copy=2e10,
    disk=1e9,
    pull=1e9,
    pause=0.5,
    step=0.25,
    origin="by hand",
)


def costs(load: Workload = LOAD, speeds: Speeds = SPEEDS) -> dict[str, Estimate]:
    return {each.route.label: each for each in estimate(load, speeds)}


def test_the_parts_by_hand() -> None:
    assert LOAD.crossings == 2.0, "200 episodes at once, 100 of them taken by an update"
    assert sampling_seconds(LOAD, SPEEDS) == pytest.approx(100 * (500 * 100 / 1e4 + 10) / 200)
    assert scoring_tokens(LOAD) == 100 * 1000 * 2, "three versions: prefixes of 1/3, 2/3 and 1"
    assert loading_seconds(LOAD, SPEEDS) == pytest.approx(0.5 + 2 * 2 + 100 * 500 / 1e5)


def test_the_routes_by_hand() -> None:
    found = costs()
    train, score, publish, load = 1e5 / 2e4, 2e5 / 1e5, 2.0, 5.0
    base = train + 0.25 + publish
    assert found["Recompute"].learner == pytest.approx(base)
    assert found["Recompute"].update == pytest.approx(load + max(base, 7.5))
    assert found["Interruption/Overlapped"].learner == pytest.approx(base + score + 4 / 20)
    assert found["Interruption/Overlapped"].held == 4e9
    assert found["Interruption/Barrier"].stall == pytest.approx(load + 200 * 500 / 1e5 + 0.25 + publish)
    assert found["Interruption/Barrier"].learner == pytest.approx(train + 1.0)
    assert found["Snapshot/Memory"].learner == pytest.approx(base + score + 6 * 4 / 20)
    assert found["Snapshot/Memory"].memory == found["Snapshot/Disk"].disk == 6 * 4e9
    assert found["Snapshot/Disk"].learner == pytest.approx(base + score + 6 * 4)
    assert found["Dedicated"].workers == pytest.approx(2 * score + 4)
    assert found["Dedicated"].learner == pytest.approx(base)
    assert found["EWMA"].learner == pytest.approx(base + 1.0 + 3 * 4 / 20)
    assert [each.devices for each in found.values()] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_synchronous_training_adds_up_and_leaves_nothing_in_flight() -> None:
    found = costs(dataclasses.replace(LOAD, bound=0))
    one = found["Snapshot/Memory"]
    assert one.update == pytest.approx(one.stall + one.learner + one.sampling)
    assert one.forward_tokens == 1e5, "nothing changes while a trajectory is sampled"
    assert found["Interruption/Barrier"].stall == pytest.approx(0.5 + 4 + 0.25 + 2.0)


@given(st.integers(0, 12), st.integers(1, 4096), st.integers(1, 4096))
def test_prefixes_never_exceed_one_forward_per_version(bound: int, slots: int, batch: int) -> None:
    load = dataclasses.replace(LOAD, bound=bound, rollouts=1, concurrency=slots, batch=batch)
    whole = batch * load.tokens
    assert whole <= scoring_tokens(load) <= whole * (bound + 1)


NUMBER = st.floats(1.0, 1e3)


@given(factor=NUMBER, name=st.sampled_from(["forward", "worker", "train", "decode", "prefill", "copy", "disk", "pull"]))
def test_a_faster_part_never_makes_an_update_slower(factor: float, name: str) -> None:
    faster = Speeds(
        **{n: getattr(SPEEDS, n) * (factor if n == name else 1) for n in SPEEDS.__struct_fields__ if n != "origin"}
    )
    for before, after in zip(estimate(LOAD, SPEEDS), estimate(LOAD, faster), strict=True):
        assert after.update <= before.update * (1 + 1e-12)
        assert after.held == before.held


@given(bound=st.integers(1, 20), more=st.integers(1, 20))
def test_a_wider_bound_keeps_more_versions_and_a_proxy_none(bound: int, more: int) -> None:
    narrow, wide = (costs(dataclasses.replace(LOAD, bound=b)) for b in (bound, bound + more))
    assert wide["Snapshot/Disk"].disk > narrow["Snapshot/Disk"].disk
    assert wide["Snapshot/Memory"].update >= narrow["Snapshot/Memory"].update
    assert wide["Interruption/Overlapped"].held == narrow["Interruption/Overlapped"].held
    assert wide["Recompute"].held == wide["Rollout"].held == 0.0


@given(parameters=st.floats(1e6, 1e12), factor=st.floats(1.0, 100.0))
def test_a_larger_model_costs_more_everywhere(parameters: float, factor: float) -> None:
    small, large = (
        dataclasses.replace(LOAD, parameters=size, active=size) for size in (parameters, parameters * factor)
    )
    for before, after in zip(estimate(small, assumed(small)), estimate(large, assumed(large)), strict=True):
        assert after.update >= before.update * (1 - 1e-12)
        assert after.held >= before.held * (1 - 1e-12)


def test_overlapped_is_the_barrier_without_its_scoring_stall() -> None:
    for label in (route.label for route in ROUTES if route.label != "Interruption/Barrier"):
        assert costs()[label].stall == costs()["Recompute"].stall
    assert costs()["Interruption/Barrier"].stall > costs()["Recompute"].stall


def test_what_does_not_fit_says_so() -> None:
    tight = costs(dataclasses.replace(LOAD, memory=20e9, storage=30e9))
    assert "GiB of the learner's memory" in tight["Snapshot/Memory"].obstacle
    assert "GiB of disk" in tight["Snapshot/Disk"].obstacle
    assert tight["Interruption/Overlapped"].obstacle == ""
    cpu = costs(dataclasses.replace(LOAD, accelerators=0, memory=19e9))
    assert cpu["Interruption/Overlapped"].obstacle, (
        "weights, gradient and moments take their own part of a CPU's memory"
    )


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("Qwen/Qwen3-4B", 4e9, 4e9),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 30e9, 3e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6, 135e6),
        ("Qwen/Qwen2.5-0.5B", 0.5e9, 0.5e9),
        ("some/model", 7e9, 7e9),
    ],
)
def test_sizes_come_from_names(name: str, total: float, active: float) -> None:
    found = workload(job(model={"pretrained": name}).spec)
    assert (found.parameters, found.active) == (total, active)
    assert ("assumed" in found.origin) == (name == "some/model")


def test_what_the_user_knows_counts_more() -> None:
    found = workload(job().spec, Known(parameters=3e9, tokens=7.0, tool_seconds=2.0))
    assert (found.parameters, found.tokens, found.sampled, found.tool_seconds) == (3e9, 7.0, 4.0, 2.0)
    assert workload(job().spec).parameters == builtin_parameters(job().spec.model.builtin)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"), [("10Gi", 10 * 2**30), ("500m", 0.5), (2, 2), ("1e3", 1e3), ("+4k", 4e3), ("2M", 2e6)]
)
def test_quantities(text: str | int, value: float) -> None:
    assert amount(text) == value
