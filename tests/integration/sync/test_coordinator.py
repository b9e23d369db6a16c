"""The coordinator against a learner and rollouts over real HTTP: in peace, and with everything that can go wrong."""

import asyncio
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.integration.sync.scene import LIMITS, TOKEN, Scene, scene

from asyncppo.sync.columns import COLUMNS
from asyncppo.sync.limits import SyncLimits
from asyncppo.sync.member import Mode
from asyncppo.wire import routes
from asyncppo.wire.membership import MemberState

LEARNER_PATHS = [
    routes.SYNC_BEGIN,
    routes.SYNC_SCORE,
    routes.SYNC_SEAL,
    routes.SYNC_STEP,
    routes.SYNC_PUBLISH,
    routes.SYNC_FINISH,
]
MEMBER_PATHS = [routes.PAUSE, routes.FLUSH, routes.LOAD, routes.RESUME]


@pytest.mark.parametrize("column", list(COLUMNS))
async def test_version_after_version_in_every_column(column: str) -> None:
    async with scene(column, rollouts=3) as one:
        one.coordinate("c0")
        await one.over()
        assert one.learner.books.epoch == 3
        assert one.learner.trained == [0, 1, 2]
        assert one.phases[: len(COLUMNS[column].phases)] == [phase.value for phase in COLUMNS[column].phases]
        assert all(seconds["stall"] >= seconds["load"] for seconds in one.learner.seconds)
        assert all(len({version for _, _, version in each.sampled}) > 1 for each in one.rollouts)
        await one.until(lambda: all(each.guard.version == 3 for each in one.rollouts))


async def test_the_coordinator_ends_with_the_job() -> None:
    async with scene(versions=1) as one:
        one.coordinate("c0")
        await asyncio.wait_for(one.running["c0"], 60)
        assert one.learner.books.version == 1


@pytest.mark.parametrize("path", [routes.PAUSE, routes.FLUSH, routes.LOAD])
async def test_a_rollout_that_hangs_is_fenced_and_comes_back(path: str) -> None:
    async with scene(versions=1000) as one:
        hung = one.rollouts[1]
        hung.faults.hang[path] = asyncio.Event()
        one.coordinate("c0", limits(pause=1.0, load=1.0))
        await one.until(lambda: one.learner.books.version == 1)
        hung.faults.hang.pop(path).set()
        await one.until(lambda: hung.guard.incarnation > 2)
        version = one.learner.books.version
        await one.until(lambda: hung.guard.version >= version + 2)
        assert one.learner.trained == list(range(one.learner.books.published))


def limits(**changes: float) -> SyncLimits:
    return dataclasses.replace(LIMITS, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", MEMBER_PATHS)
async def test_a_cut_connection_is_asked_again_and_fences_nobody(path: str) -> None:
    async with scene(versions=2) as one:
        for rollout in one.rollouts:
            rollout.faults.drop[path] = 2
        one.coordinate("c0")
        await one.over()
        assert [each.incarnation for each in one.learner.books.members] == [1, 2]
        assert one.learner.books.epoch == 2


@pytest.mark.parametrize("path", LEARNER_PATHS)
async def test_a_learners_answer_that_is_lost_is_asked_for_again(path: str) -> None:
    async with scene(versions=2) as one:
        one.learner.faults.drop[path] = 1
        one.coordinate("c0")
        await one.over()
        assert one.learner.trained == [0, 1]
        assert one.learner.books.epoch == 2


@pytest.mark.parametrize("path", LEARNER_PATHS)
@pytest.mark.parametrize("carried_out", [False, True])
async def test_the_learner_restarts_in_its_own_phases(path: str, carried_out: bool) -> None:
    async with scene(versions=2) as one:
        hooks = one.learner.faults.after if carried_out else one.learner.faults.before
        hooks[path] = lambda: restart(one)
        one.coordinate("c0")
        await one.over()
        assert one.learner.trained == [0, 1]


@pytest.mark.parametrize("path", MEMBER_PATHS)
async def test_the_learner_restarts_in_the_members_phases(path: str) -> None:
    async with scene(versions=2) as one:
        one.rollouts[0].faults.before[path] = lambda: restart(one)
        one.coordinate("c0")
        await one.over()
        assert one.learner.trained == [0, 1]


async def restart(one: Scene) -> None:
    """From within a request: the server goes and comes back by itself."""

    async def again() -> None:
        await one.learner.stop()
        await asyncio.sleep(0.2)
        await one.learner.start()

    task = asyncio.create_task(again())
    one.running["restart"] = task
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("path", [*LEARNER_PATHS, *MEMBER_PATHS])
async def test_a_coordinator_dies_in_any_phase_and_another_takes_over(path: str) -> None:
    async with scene(versions=2) as one:
        faults = one.learner.faults if path in LEARNER_PATHS else one.rollouts[0].faults
        died = asyncio.Event()

        async def die() -> None:
            died.set()
            await asyncio.sleep(0.05)

        faults.before[path] = die
        one.coordinate("c0")
        await asyncio.wait_for(died.wait(), 60)
        await one.kill("c0")
        one.coordinate("c1")
        await one.over()
        assert one.learner.trained == [0, 1]


async def test_the_same_coordinator_takes_up_its_own_epoch_at_once() -> None:
    async with scene(versions=1) as one:
        one.rollouts[0].faults.hang[routes.FLUSH] = asyncio.Event()
        one.coordinate("c0")
        await one.until(lambda: routes.FLUSH in one.rollouts[0].faults.calls)
        await one.kill("c0")
        one.rollouts[0].faults.hang.clear()
        one.coordinate("c0", limits(stall=1e6))
        await one.over()
        assert one.learner.books.epoch == 2


async def test_two_coordinators_at_once() -> None:
    async with scene(versions=6, rollouts=3) as one:
        one.coordinate("c0")
        one.coordinate("c1")
        await one.over()
        assert one.learner.trained == list(range(6))


async def test_two_hasty_coordinators_still_get_there() -> None:
    """Each takes the other for dead all the time: epochs are lost, nothing else."""
    async with scene("Overlapped", versions=3, rollouts=2) as one:
        one.coordinate("c0", limits(stall=0.05))
        one.coordinate("c1", limits(stall=0.05))
        await one.over()
        assert one.learner.trained == [0, 1, 2]


async def test_a_rollout_that_is_killed_and_comes_back_is_not_waited_for_until_its_deadline() -> None:
    async with scene(versions=2) as one:
        gone = one.rollouts[1]
        gone.faults.hang[routes.PAUSE] = asyncio.Event()
        one.coordinate("c0", limits(pause=1e6))
        await one.until(lambda: routes.PAUSE in gone.faults.calls)
        await one.gone(gone)
        await one.rollout("r1")
        await one.over()
        assert one.learner.trained == [0, 1]


async def test_without_a_coordinator_an_expired_pause_rolls_back() -> None:
    async with scene(versions=1) as one:
        one.rollouts[1].faults.hang[routes.PAUSE] = asyncio.Event()
        one.coordinate("c0", limits(pause_ttl=1.0))
        await one.until(lambda: one.rollouts[0].guard.mode is Mode.PAUSED)
        await one.kill("c0")
        await one.until(lambda: one.rollouts[0].guard.samples)
        assert one.rollouts[0].guard.version == 0
        assert not one.learner.books.open
        one.rollouts[1].faults.hang.clear()
        one.coordinate("c1")
        await one.over()


async def test_without_a_coordinator_a_sealed_and_published_version_is_loaded_all_the_same() -> None:
    async with scene(versions=2) as one:
        one.rollouts[0].faults.hang[routes.LOAD] = asyncio.Event()
        one.coordinate("c0", limits(pause_ttl=1.0))
        await one.until(lambda: routes.LOAD in one.rollouts[0].faults.calls)
        await one.kill("c0")
        await one.until(lambda: all(each.guard.samples and each.guard.version == 1 for each in one.rollouts))
        assert one.learner.books.version == 1
        one.rollouts[0].faults.hang.clear()
        one.coordinate("c1")
        await one.over()


async def test_a_long_sync_prolongs_its_pauses() -> None:
    async with scene(versions=1) as one:
        done = asyncio.Event()
        one.learner.faults.before[routes.SYNC_SCORE] = lambda: wait(done)
        one.coordinate("c0", limits(pause_ttl=1.0))
        first = one.rollouts[0]
        await one.until(lambda: first.faults.calls.count(routes.PAUSE) >= 8)
        done.set()
        await one.over()
        assert one.learner.books.epoch == 1


async def wait(event: asyncio.Event) -> None:
    await event.wait()


async def test_weights_that_everybody_refuses_stop_the_job() -> None:
    async with scene(versions=2) as one:
        for rollout in one.rollouts:
            rollout.load_error = "CanaryFailed"
        one.coordinate("c0")
        await asyncio.wait_for(one.running["c0"], 60)
        assert "r0, r1" in one.learner.books.failed


async def test_too_few_rollouts_wait_for_more() -> None:
    async with scene(versions=1, rollouts=1) as one:
        coordinator = one.coordinate("c0", limits(min_ready=2))
        await one.until(lambda: "1 of at least 2" in coordinator.state.note)
        assert one.learner.books.epoch == 0
        await one.rollout("r1")
        await one.over()
        assert one.learner.books.epoch == 1


async def test_a_draining_rollout_is_still_part_of_the_sync() -> None:
    async with scene(versions=1) as one:
        books = one.learner.books
        members = tuple(
            replace(each, state=MemberState.DRAINING) if each.name == "r1" else each for each in books.members
        )
        one.learner.books = replace(books, members=members)
        one.coordinate("c0")
        await one.over()
        assert routes.FLUSH in one.rollouts[1].faults.calls


async def test_cancelling_leaves_no_task_behind() -> None:
    async with scene(versions=1) as one:
        one.rollouts[0].faults.hang[routes.PAUSE] = asyncio.Event()
        before = asyncio.all_tasks()
        one.coordinate("c0")
        await one.until(lambda: routes.PAUSE in one.rollouts[0].faults.calls)
        await one.kill("c0")
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}  # type: ignore[union-attr]
        assert not {name for name in names if "Coordinator" in name}
        one.rollouts[0].faults.hang.pop(routes.PAUSE).set()


async def test_as_a_program_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    async with scene(versions=2) as one:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "asyncppo.sync",
            *("--learner", one.learner.url, "--token-file", str(tmp_path / "token"), "--name", "c0"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(program.communicate(), 120)
        assert program.returncode == 0, errors.decode()
        assert TOKEN not in errors.decode()
        assert one.learner.trained == [0, 1]


def test_the_program_wants_a_token(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asyncppo.sync", "--learner", "http://127.0.0.1:1", "--name", "c0"]
    missing = subprocess.run(
        [*command, "--token-file", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 2
    assert "mount the job's token there" in missing.stderr
    (tmp_path / "empty").write_text("\n")
    empty = subprocess.run(
        [*command, "--token-file", str(tmp_path / "empty")], capture_output=True, text=True, check=False
    )
    assert empty.returncode == 2
