"""Syncs are counted from the coordinator's states: what ended how, how long phases took, who was left behind, what is stuck."""

from itertools import pairwise

from asyncppo.sync.columns import Phase
from asyncppo.sync.machine import State
from asyncppo.wire.membership import Member, MemberState
from asyncppo_operator.syncbook import STUCK_SECONDS, SyncBook

MEMBERS = tuple(Member(f"r-{n}", n + 1, "http://x", MemberState.READY, 3) for n in range(2))


def state(phase: Phase, epoch: int = 5, members: tuple[Member, ...] = MEMBERS, note: str = "") -> State:
    return State(coordinator="c", phase=phase, epoch=epoch, members=members, note=note)


def book(*phases: tuple[Phase, float], epoch: int = 5, made: SyncBook | None = None) -> SyncBook:
    """A book that has seen these phases, each entered at its time, in one epoch."""
    made = made or SyncBook()
    for (phase, at), (following, then) in pairwise(phases):
        made.turned(state(phase, epoch), state(following, epoch), then - at, then)
    return made


def test_a_whole_sync_is_done_and_its_phases_are_measured() -> None:
    made = book(
        (Phase.BEGIN, 0), (Phase.PAUSE, 1), (Phase.LOAD, 1.5), (Phase.FINISH, 4), (Phase.RESUME, 4.1), (Phase.IDLE, 4.2)
    )
    assert made.results == {"done": 1}
    assert {phase: round(seen.total, 3) for phase, seen in made.seconds.items()} == {
        "pause": 0.5,
        "load": 2.5,
        "finish": 0.1,
        "resume": 0.1,
    }
    assert made.error(5, 0) == ""


def test_the_next_epoch_may_begin_without_idling() -> None:
    made = book((Phase.BEGIN, 0), (Phase.PAUSE, 1), (Phase.RESUME, 2))
    made.turned(state(Phase.RESUME), state(Phase.BEGIN, epoch=6), 1, 3)
    assert made.results == {"done": 1}


def test_a_sync_given_up_is_told_until_one_succeeds() -> None:
    made = book((Phase.BEGIN, 0), (Phase.PAUSE, 1))
    made.turned(state(Phase.PAUSE), state(Phase.IDLE, note="epoch 5 was lost"), 1, 2)
    assert made.results == {"abandoned": 1}
    assert made.error(3, 0) == "the sync of epoch 5 was given up in Pause: epoch 5 was lost; it is tried again"
    book((Phase.IDLE, 3), (Phase.BEGIN, 4), (Phase.PAUSE, 5), (Phase.FINISH, 6), (Phase.IDLE, 7), epoch=6, made=made)
    assert made.error(8, 0) == ""


def test_rollouts_left_behind_are_counted_once() -> None:
    made = SyncBook()
    one = MEMBERS[:1]
    made.turned(state(Phase.PAUSE), state(Phase.LOAD, members=one), 1, 1)
    made.turned(state(Phase.LOAD, members=one), state(Phase.FINISH, members=one), 1, 2)
    made.turned(state(Phase.FINISH, members=one), state(Phase.IDLE, members=()), 1, 3)
    assert made.fenced == 1


def test_a_phase_that_does_not_end_is_told() -> None:
    made = book((Phase.BEGIN, 0), (Phase.LOAD, 1))
    assert made.error(100, patience=60) == ""
    assert made.error(62 + STUCK_SECONDS, patience=60).startswith("the sync of epoch 5 has been in Load for")


def test_waiting_for_a_sync_is_not_being_stuck() -> None:
    assert book((Phase.LOAD, 0), (Phase.IDLE, 1)).error(1e9, 0).startswith("the sync of epoch 5 was given up in Load")
    assert book((Phase.BEGIN, 0), (Phase.IDLE, 1)).error(1e9, 0) == ""
