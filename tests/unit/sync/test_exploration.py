"""The exploration itself: without faults in all columns, and with the variants it must catch. With faults: tests/integration/sync."""

from functools import cache

import pytest
from msgspec.structs import replace

from asyncppo.sync.columns import COLUMNS, distinct
from asyncppo.sync.exploration.__main__ import explore_column, explore_variant, main
from asyncppo.sync.exploration.moves import beginning, moves
from asyncppo.sync.exploration.search import WAY_FORWARD, Violation, explore
from asyncppo.sync.exploration.variants import VARIANTS, Variant
from asyncppo.sync.exploration.world import at_rest, broken, done


@cache
def caught(variant: Variant) -> Violation:
    found = explore_variant(variant)
    assert found.violation is not None
    return found.violation


@pytest.mark.parametrize("name", list(distinct()))
def test_without_faults_every_order_of_events_is_fine(name: str) -> None:
    found = explore_column(COLUMNS[name], faults=0, samples=(1, 1))
    assert found.violation is None, str(found.violation)
    assert found.states > 300
    assert found.ends > 0


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda each: each.name)
def test_a_protocol_that_leaves_out_a_check_is_caught(variant: Variant) -> None:
    violation = caught(variant)
    assert violation.invariant == variant.breaks
    assert len(violation.trace) <= 12
    words = str(violation)
    assert words.startswith(f"{variant.breaks}: segment 0 of lease")
    assert all(len(line) < 120 for line in words.splitlines())
    assert " 1. " in words


def test_the_histories_that_catch_them_are_the_ones_to_expect() -> None:
    count, incarnation, lease = (" / ".join(caught(each).trace) for each in VARIANTS)
    assert "the upload is delayed" in count
    assert "is cut off and replaced" in incarnation
    assert incarnation.index("Seal epoch 1: done") < incarnation.index("samples segment 0")
    assert "expires, though its holder lives" in lease


def test_a_dead_end_is_found() -> None:
    """Without heartbeats nobody would ever hear that an epoch has ended."""

    def deaf(world):  # type: ignore[no-untyped-def]
        return ((label, after) for label, after in moves(world) if "heartbeat" not in label and "Resume" not in label)

    found = explore(beginning("Snapshot", 0, (0, 0)), deaf)
    assert found.violation is not None
    assert found.violation.invariant == WAY_FORWARD


def test_too_large_a_budget_says_so() -> None:
    with pytest.raises(RuntimeError, match="fewer faults"):
        explore(beginning("Barrier", 1, (1, 0)), moves, limit=50)


def test_each_invariant_can_be_broken() -> None:
    """A world that is wrong is called wrong: otherwise the search would prove nothing."""
    first = beginning("Barrier", 0, (1, 0))
    label, sampled = next((label, after) for label, after in moves(first) if "samples" in label)
    assert "lease 1" in label
    assert list(broken(sampled)) == []
    (fate,) = sampled.fates
    sealed = replace(sampled, books=replace(sampled.books, sealed_version=0))
    assert [name for name, _ in broken(sealed)] == ["ends-once"]
    for wrong, invariant in (
        (replace(fate, taken=1, late=True), "sealed-means-closed"),
        (replace(fate, taken=1, taken_late=True), "sealed-means-closed"),
        (replace(fate, taken=1, discarded=1), "ends-once"),
        (replace(fate, taken=1, weightless=True), "scored-by-its-own"),
    ):
        assert invariant in [name for name, _ in broken(replace(sampled, fates=(wrong,)))]
    assert [name for name, _ in broken(replace(first, trained=(0, 0)))] == ["trained-once"]
    assert [name for name, _ in broken(replace(first, misscored=True))] == ["scored-by-its-own"]
    assert not done(first)
    assert at_rest(first)


def test_the_command_prints_counts_and_traces(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--column", "Snapshot", "--faults", "0", "--samples", "0,0"]) == 0
    assert "Snapshot" in capsys.readouterr().out
    assert main(["--samples", "1"]) == 2
    assert "--samples takes two counts" in capsys.readouterr().err
