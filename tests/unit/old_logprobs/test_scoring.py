"""The triple check per segment: what is flipped is refused, a consistent forgery trips the discrepancy bound, an outlier does not."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithm.builders import VOCABULARY
from tests.unit.old_logprobs.builders import FORWARD, Record, Versions

from asyncppo.api.correction import OldLogitsSpec, Strategy
from asyncppo.api.training import Precision
from asyncppo_runtime.old_logprobs.errors import HeldWeightsError, VersionUnavailableError
from asyncppo_runtime.old_logprobs.interface import HeldVersion
from asyncppo_runtime.old_logprobs.scoring import score_segments
from asyncppo_runtime.old_logprobs.verify import (
    Reason,
    allowed_difference,
    segment_bound,
    typical_difference,
    verify_scores,
)

VERSIONS = Versions.of([3, 4])
RECORDS = {version: Record(version, VERSIONS.hash(version), f"published-{version}") for version in (3, 4)}
BOUND = 0.01


@dataclass(frozen=True)
class Segment:
    trajectory: int
    version: int
    weights_hash: str
    start: int
    end: int
    token_ids: tuple[int, ...]
    behavior_logprobs: tuple[float, ...]


def sampled(trajectory: int, version: int, start: int, end: int, length: int = 12) -> Segment:
    """A segment whose behavior log-probs really are those of `version` (an engine without numeric discrepancy)."""
    ids = torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(trajectory)).tolist()
    with torch.no_grad():
        logits = VERSIONS.models[version](torch.tensor([ids])).logits[0] / FORWARD.temperature
    logprobs = torch.log_softmax(logits, -1)[torch.arange(start - 1, end - 1), torch.tensor(ids[start:end])]
    return Segment(trajectory, version, f"published-{version}", start, end, tuple(ids[:end]), tuple(logprobs.tolist()))


GOOD = [sampled(1, 3, 3, 6), sampled(1, 4, 8, 11), sampled(2, 3, 2, 5), sampled(2, 3, 7, 9)]


def scored(segments, hold=VERSIONS.hold, records=None):
    return score_segments(
        segments, lambda s: s.trajectory, RECORDS if records is None else records, hold, FORWARD, BOUND
    )


def test_honest_segments_are_scored_with_one_forward_per_trajectory_and_version():
    result = scored(GOOD)
    assert {id(s.segment) for s in result.scored} == {id(s) for s in GOOD}
    assert not result.refused
    assert not result.unavailable
    for each in result.scored:
        torch.testing.assert_close(
            each.old_logprobs, torch.tensor(each.segment.behavior_logprobs).double(), rtol=0, atol=1e-6
        )
        assert (each.version, each.train_hash) == (each.segment.version, VERSIONS.hash(each.segment.version))
    assert result.forward_tokens == {3: 6 + 9, 4: 11}


def reasons(result):
    assert not result.scored
    return [refused.verdict.reason for refused in result.refused]


def test_a_flipped_version_is_refused():
    assert reasons(scored([replace(GOOD[0], version=4)])) == [Reason.HASH_MISMATCH]


def test_a_flipped_hash_is_refused():
    assert reasons(scored([replace(GOOD[0], weights_hash="published-4")])) == [Reason.HASH_MISMATCH]


def test_both_flipped_consistently_trip_the_discrepancy_bound():
    forged = replace(GOOD[0], version=4, weights_hash="published-4")
    result = scored([forged])
    assert reasons(result) == [Reason.MISLABELLED]
    assert "not sampled from these weights" in result.refused[0].verdict.message


def test_an_unknown_version_is_refused():
    assert reasons(scored([replace(GOOD[0], version=9)])) == [Reason.UNKNOWN_VERSION]
    assert reasons(scored([GOOD[0]], records={3: None})) == [Reason.UNKNOWN_VERSION]


def test_a_scorer_that_holds_other_weights_is_refused():
    held = HeldVersion(VERSIONS.models[4], 3, VERSIONS.hash(4))

    class Lender:
        def __enter__(self):
            return held

        def __exit__(self, *_):
            return None

    assert reasons(scored([GOOD[0]], hold=lambda _: Lender())) == [Reason.WRONG_WEIGHTS]


def test_a_scorer_that_holds_another_version_is_refused():
    assert reasons(scored([GOOD[0]], hold=lambda _: VERSIONS.hold(4))) == [Reason.WRONG_VERSION]


def test_missing_weights_are_told_apart_from_wrong_ones():
    def gone(version):
        if version == 3:
            raise VersionUnavailableError(3, "version 3 was evicted")
        return VERSIONS.hold(version)

    result = scored(GOOD, hold=gone)
    assert result.unavailable == [GOOD[0], GOOD[2], GOOD[3]]
    assert result.why_unavailable == {3: "version 3 was evicted"}
    assert [s.segment for s in result.scored] == [GOOD[1]]

    def damaged(_):
        raise HeldWeightsError("the file is damaged")

    assert reasons(scored(GOOD, hold=damaged)) == [Reason.WRONG_WEIGHTS] * 4


def test_one_bad_segment_does_not_hold_back_the_others():
    result = scored([*GOOD, replace(GOOD[2], weights_hash="")])
    assert len(result.scored) == 4
    assert len(result.refused) == 1


def test_the_bound_is_inclusive_and_catches_what_is_not_finite():
    zero = torch.zeros(2, dtype=torch.float64)
    allowed = allowed_difference(0.5, 2)
    assert verify_scores(zero + allowed, zero, 0.5).accepted
    assert verify_scores(zero + allowed * 1.001, zero, 0.5).reason is Reason.MISLABELLED
    assert verify_scores(zero + float("nan"), zero, 0.5).reason is Reason.NOT_FINITE
    for value in (float("nan"), float("-inf")):
        bad = torch.zeros(400, dtype=torch.float64)
        bad[7] = value  # one of many: trimming must not hide it
        assert verify_scores(torch.zeros_like(bad), bad, 0.5).reason is Reason.MISLABELLED
        assert verify_scores(bad, torch.zeros_like(bad), 0.5).reason is Reason.NOT_FINITE
    assert verify_scores(zero[:0], zero[:0], 0.5).accepted


@settings(max_examples=100)
@given(tokens=st.integers(1, 300), seed=st.integers(0, 10**6), size=st.floats(0.0, 50.0), by=st.floats(0.0, 50.0))
def test_outliers_up_to_a_quarter_move_nothing_and_a_shift_of_all_moves_it_whole(tokens, seed, size, by):
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand(tokens, generator=g, dtype=torch.float64) * 5
    apart = 0.02 * torch.randn(tokens, generator=g, dtype=torch.float64)
    honest = typical_difference(old + apart, old)
    assert honest <= float(apart.abs().mean()) + 1e-12
    outliers = torch.randperm(tokens, generator=g)[: tokens // 4]
    apart[outliers] = size
    assert typical_difference(old + apart, old) <= 0.02 * 5, "the quarter that is left out holds them all"
    assert typical_difference(old + by, old) == pytest.approx(by, abs=1e-9)


def test_an_honest_segment_in_bfloat16_with_outliers_passes_and_other_weights_do_not():
    """What a bound on each token did the other way round: one nat on one token condemned the segment and its sender."""
    g = torch.Generator().manual_seed(0)
    zero = torch.zeros(64, dtype=torch.float64)
    honest = 0.02 * torch.randn(64, generator=g, dtype=torch.float64)
    honest[[3, 17, 40]] = torch.tensor([1.3, -2.0, 7.0], dtype=torch.float64)
    bound = segment_bound(OldLogitsSpec(strategy=Strategy.SNAPSHOT), Precision.FLOAT32, Precision.BFLOAT16)
    assert verify_scores(honest, zero, bound).accepted
    wrong = 0.6 * torch.randn(64, generator=g, dtype=torch.float64)
    assert wrong.abs().max() < 2.5, "no token of it is as far off as the honest outlier"
    assert verify_scores(wrong, zero, bound).reason is Reason.MISLABELLED


def test_short_segments_have_more_room():
    assert allowed_difference(0.1, 1) == pytest.approx(10.0)
    assert [allowed_difference(0.1, n) > allowed_difference(0.1, n + 1) for n in (1, 4, 64)] == [True] * 3
    assert allowed_difference(0.1, 10**6) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("asked", "learner", "engine", "expected"),
    [
        (None, Precision.FLOAT32, Precision.FLOAT32, 0.001),
        (None, Precision.FLOAT64, Precision.FLOAT32, 0.001),
        (None, Precision.FLOAT32, Precision.BFLOAT16, 0.1),
        (None, Precision.BFLOAT16, Precision.BFLOAT16, 0.1),
        (0.3, Precision.FLOAT32, Precision.FLOAT32, 0.3),
    ],
)
def test_the_jobs_bound(asked, learner, engine, expected):
    spec = OldLogitsSpec(strategy=Strategy.SNAPSHOT, segment_bound=asked)
    assert segment_bound(spec, learner, engine) == expected
