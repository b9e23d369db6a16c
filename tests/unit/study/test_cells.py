"""Names of strategies, the swept field, and the jobs they make; bad input is refused with what is allowed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.study.builders import job

from asyncppo.api.correction import Scoring, SnapshotMedium, Strategy
from asyncppo.api.problems import ManifestError
from asyncppo.api.sweep import parse_sweep, with_fields
from asyncppo.errors import UserError
from asyncppo.study.cells import parse_strategies, plan


def test_every_combination_is_a_cell_of_its_own() -> None:
    sweep = parse_sweep("staleness.maxVersions=1,2,4")
    cells = plan(job(), parse_strategies("Interruption/Overlapped,Snapshot/Memory,Recompute"), 3, sweep, "m")
    assert len(cells) == len({cell.name for cell in cells}) == len({cell.fingerprint for cell in cells}) == 27
    assert {cell.job.spec.staleness.max_versions for cell in cells} == {1, 2, 4}
    assert {cell.job.spec.seed for cell in cells} == {0, 1, 2}
    [overlapped] = {c.job.spec.old_logits.scoring for c in cells if c.contender.strategy is Strategy.INTERRUPTION}
    [medium] = {c.job.spec.old_logits.snapshot.medium for c in cells if c.contender.strategy is Strategy.SNAPSHOT}
    assert (overlapped, medium) == (Scoring.OVERLAPPED, SnapshotMedium.MEMORY)


def test_what_belongs_to_the_manifest_s_strategy_does_not_follow_to_another() -> None:
    made = job(scoring="Overlapped", onUnavailable="Discard")
    interruption, ewma = plan(made, parse_strategies("Interruption,EWMA"), 1, None, "m")
    assert interruption.job.spec.old_logits.scoring is Scoring.OVERLAPPED
    assert ewma.job.spec.old_logits.scoring is Scoring.BARRIER


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Interruption", "at least two"),
        ("", "at least two"),
        ("Interruption,Interruption", "twice"),
        ("Interruption,Snapshott", "did you mean Snapshot?"),
        ("Interruption,Zebra", 'unknown strategy "Zebra"; allowed: Interruption, Snapshot'),
        ("Interruption,Snapshot/Tape", "allowed: Snapshot/Memory, Snapshot/Disk"),
        ("Interruption,EWMA/Fast", "it has no variants"),
    ],
)
def test_bad_strategies_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        parse_strategies(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("staleness.maxVersions", "FIELD=a,b,c"),
        ("=1,2", "FIELD=a,b,c"),
        ("staleness.maxVersions=", "FIELD=a,b,c"),
        ("staleness.maxVersion=1,2", "did you mean maxVersions?"),
        ("stalenes.maxVersions=1,2", "did you mean staleness?"),
        ("staleness=1,2", "name one of its fields: maxVersions, action"),
        ("staleness.maxVersions=1,1", "twice"),
        ("staleness.maxVersions=1,,2", "found nothing"),
    ],
)
def test_bad_sweeps_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        parse_sweep(text)


def test_a_value_that_the_field_does_not_allow_is_refused_before_anything_runs() -> None:
    with pytest.raises(ManifestError, match="found -1"):
        plan(job(), parse_strategies("Interruption,EWMA"), 1, parse_sweep("staleness.maxVersions=-1,2"), "m")


def test_parameters_of_environments_can_be_swept() -> None:
    cells = plan(job(), parse_strategies("Interruption,EWMA"), 1, parse_sweep("environment.parameters.tries=3,5"), "m")
    assert [cell.job.spec.environment.parameters["tries"] for cell in cells] == [3, 3, 5, 5]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=5, unique=True))
def test_a_sweep_gives_its_values_back(values: list[int]) -> None:
    sweep = parse_sweep("spec.staleness.maxVersions=" + ",".join(map(str, values)))
    assert sweep.values == tuple(values)
    assert [with_fields(job(), {sweep.path: v}, "m").spec.staleness.max_versions for v in sweep.values] == values
