"""Random histories that are longer and worse than what can be explored exhaustively; the same invariants, and always a way out."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from asyncppo.sync.columns import distinct
from asyncppo.sync.exploration.moves import beginning, moves
from asyncppo.sync.exploration.world import World, broken, done

FAULTS, SAMPLES, MOVES, CALM_MOVES = 8, (3, 3), 120, 4000


@settings(max_examples=25)
@given(st.sampled_from(list(distinct())), st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_many_faults_break_nothing_and_the_sync_ends_when_they_end(column: str, min_ready: int, seed: int) -> None:
    chance = Random(seed)
    world = beginning(column, FAULTS, SAMPLES, min_ready)
    told: list[str] = []
    for _ in range(MOVES):
        world = onward(world, chance, told)
    world = replace(world, faults=0)
    for _ in range(CALM_MOVES):
        if done(world):
            return
        world = onward(world, chance, told)
    raise AssertionError("no end in sight:\n" + "\n".join(told[-60:]))


def onward(world: World, chance: Random, told: list[str]) -> World:
    """One move, and the invariants after it."""
    possible = list(moves(world))
    if not possible:
        return world
    label, after = chance.choice(possible)
    told.append(label)
    wrong = list(broken(after))
    assert not wrong, f"{wrong}\n" + "\n".join(told)
    return after
