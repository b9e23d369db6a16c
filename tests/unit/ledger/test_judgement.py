"""The rules of receipt on their own: shapes, segments, digests. Pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.ledger.builders import published_hash, segment

from asyncppo.wire.experience import Segment, Trajectory, segment_digest
from asyncppo_runtime.ledger.judgement import (
    Holder,
    KnownVersion,
    Situation,
    Span,
    discard_reason,
    malformation,
    refusal_of,
    reward_breach,
    token_breach,
    trajectory_digest,
)
from asyncppo_runtime.ledger.records import Limits


def one(**changes: object) -> Trajectory:
    """A well-formed trajectory of two segments, with something changed."""
    base = Trajectory(
        lease_id=1,
        group_id=0,
        token_ids=list(range(10)),
        segments=[segment(0, 1, 3, 0), segment(1, 5, 8, 1)],
        finished=True,
    )
    return structs.replace(base, **changes)


@pytest.mark.parametrize(
    "wrong",
    [
        one(token_ids=list(range(7))),
        one(segments=[segment(1, 1, 3, 0)]),
        one(segments=[segment(0, 1, 3, 0), segment(0, 5, 8, 0)]),
        one(segments=[segment(0, 1, 3, 0), segment(1, 2, 8, 0)]),
        one(segments=[segment(0, 1, 3, 1), segment(1, 5, 8, 0)]),
        one(segments=[segment(0, 3, 3, 0)]),
        one(segments=[segment(0, -1, 3, 0)]),
        one(segments=[Segment(0, 1, 3, 0, "h", [-0.1])]),
        one(segments=[Segment(0, 1, 3, 0, "h", [-0.1, float("inf")])]),
        one(segments=[Segment(0, 1, 3, 0, "h", [-0.1, float("nan")])]),
        one(segments=[Segment(0, 1, 3, 0, "h", [-0.1, -1e39])]),
        one(segments=[Segment(0, 1, 3, 0, "h", [-0.1, 2.0])]),
    ],
)
def test_malformed_shapes_are_named(wrong: Trajectory) -> None:
    spans = [Span(part.index, part.start, part.end, part.version) for part in wrong.segments]
    assert malformation(wrong, spans)


LIMITS = Limits(reward_bound=10.0, context_length=10, vocabulary=20)


@pytest.mark.parametrize(
    "reward", [float("nan"), float("inf"), -float("inf"), 1e300, 1e38, 10.000001, -10.000001], ids=repr
)
def test_a_reward_that_no_step_survives_is_named(reward: float) -> None:
    assert repr(reward) in reward_breach(reward, LIMITS)
    wrong = one(reward=reward, end_reason="done")
    found, detail = discard_reason(wrong, sampled=True, spoiled="", discard_overlong=False, limits=LIMITS)
    assert (found, detail) == ("reward_out_of_bounds", reward_breach(reward, LIMITS))


@pytest.mark.parametrize("reward", [0.0, -0.0, 10.0, -10.0, 1e-300], ids=repr)
def test_rewards_within_the_bound_are_taken(reward: float) -> None:
    fine = one(reward=reward, end_reason="done")
    assert discard_reason(fine, sampled=True, spoiled="", discard_overlong=False, limits=LIMITS) == ("", "")


def test_without_a_bound_a_reward_is_still_finite() -> None:
    assert reward_breach(float("inf"), Limits())
    assert reward_breach(float("nan"), Limits())
    assert not reward_breach(1e300, Limits())


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([0, 19], ""),
        ([], ""),
        ([0] * 10, ""),
        ([0] * 11, "context_exceeded"),
        ([20], "token_out_of_vocabulary"),
        ([0, -1], "token_out_of_vocabulary"),
        ([(1 << 31) - 1], "token_out_of_vocabulary"),
        ([1 << 70], "token_out_of_vocabulary"),
    ],
)
def test_ids_that_the_model_cannot_take_are_named(ids: list[int], reason: str) -> None:
    assert token_breach(len(ids), ids, LIMITS)[0] == reason


def test_what_came_without_a_token_says_why() -> None:
    cramped = one(segments=[], end_reason="overlong")
    told = discard_reason(cramped, sampled=False, spoiled="", discard_overlong=False, limits=LIMITS)
    assert told == ("empty", "the first observation alone fills the context")


@given(
    lengths=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 2)), max_size=6),
    tail=st.integers(0, 3),
    finished=st.booleans(),
)
def test_well_formed_trajectories_are_taken(lengths: list[tuple[int, int, int]], tail: int, finished: bool) -> None:
    segments, past, version = [], 0, 0
    for index, (gap, tokens, newer) in enumerate(lengths):
        version += newer
        segments.append(segment(index, past + gap, past + gap + tokens, version))
        past += gap + tokens
    whole = one(token_ids=list(range(past + tail)), segments=segments, finished=finished)
    spans = [Span(part.index, part.start, part.end, part.version) for part in segments]
    assert malformation(whole, spans) == ""
    if segments:
        assert malformation(structs.replace(whole, token_ids=whole.token_ids[: past - 1]), spans) != ""
        assert segment_digest(whole.token_ids, segments[0]) == segment_digest([*whole.token_ids, 7], segments[0])


@given(
    version=st.integers(0, 5),
    granted=st.integers(0, 5),
    announced=st.integers(0, 4),
    sealed=st.integers(-1, 4),
    flushes=st.booleans(),
    abandoned=st.booleans(),
    right_hash=st.booleans(),
    same_incarnation=st.booleans(),
)
def test_a_segment_is_taken_only_if_every_rule_holds(
    version: int,
    granted: int,
    announced: int,
    sealed: int,
    flushes: bool,
    abandoned: bool,
    right_hash: bool,
    same_incarnation: bool,
) -> None:
    versions = {number: KnownVersion(published_hash(number), abandoned) for number in range(5)}
    part = segment(0, 0, 1, version, weights_hash=None if right_hash else "other")
    situation = Situation(versions, announced, sealed, flushes, 1 if same_incarnation else 2)
    reason = refusal_of(part, Holder(granted, 1), situation)
    open_to = version > sealed or (not flushes and same_incarnation)
    fine = right_hash and not abandoned and version < 5 and granted <= version <= announced and open_to
    assert (reason == "") is fine
    if reason in ("sealed", "fenced"):
        assert (reason == "sealed") is same_incarnation


def test_the_digest_of_a_trajectory_names_its_ending() -> None:
    base = one()
    changed = [one(reward=1.0), one(end_reason="done"), one(token_ids=list(range(11)))]
    assert len({trajectory_digest(each) for each in (base, *changed)}) == 4
    assert trajectory_digest(base) == trajectory_digest(one(sampling_seconds=9.0))
