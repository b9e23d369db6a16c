"""Where no episode succeeds, leases are asked for more and more slowly, until one does."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.unit.rollout.builders import lease

from asyncppo.sync.member import MemberGuard
from asyncppo.wire.experience import LeaseReply, Segment
from asyncppo_runtime.rollout import crew as crews
from asyncppo_runtime.rollout.crew import Crew, rest_seconds
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.outbox import Outbox
from asyncppo_runtime.rollout.standing import Standing
from asyncppo_runtime.rollout.tally import Tally


def test_the_rest_grows_is_bounded_and_begins_late() -> None:
    assert [rest_seconds(failings) for failings in range(8)] == [0.0] * 8
    rests = [rest_seconds(failings) for failings in range(8, 10_000)]
    assert rests == sorted(rests)
    assert (rests[0], rests[-1]) == (0.02, 5.0)
    assert sum(rest_seconds(failings) for failings in range(8, 64, 8)) < 5, "a job that fails after 64 fails soon"


class Agent:
    """Ends every episode as `ending` says."""

    def __init__(self, ending: Callable[[int], str], error: str = "") -> None:
        self.ending = ending
        self.error = error
        self.played = 0

    async def play(self, episode: Episode) -> None:
        self.played += 1
        reason = self.ending(self.played)
        if reason not in ("environment_error", "empty"):
            episode.segments.append(Segment(0, 0, 1, 0, "h", [-1.0]))
        episode.end("overlong" if reason == "empty" else reason, self.error)


class Link:
    """Leases without end."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.granted = 0

    async def lease(self, count: int, version: int) -> LeaseReply:
        await asyncio.sleep(0)
        self.asked.append(count)
        first = self.granted + 1
        self.granted += count
        return LeaseReply([lease(number) for number in range(first, first + count)])


async def hired(ending: Callable[[int], str], seconds: float, error: str = "") -> Link:
    link, gate = Link(), Gate()
    gate.open()
    standing = Standing(MemberGuard(job_uid="uid", name="rollout-0"))
    crew = Crew(32, cast("Any", Agent(ending, error)), cast("Any", link), gate, Outbox(False), standing, Tally())
    task = asyncio.create_task(crew.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not crew.failed.done()
    return link


@pytest.mark.parametrize("reason", ["environment_error", "empty"])
async def test_an_environment_that_always_fails_burns_few_leases(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    link = await hired(lambda _: reason, 1.5)
    assert link.granted < 120
    assert link.asked[-1] == crews.PATIENT_FAILINGS
    assert sum("asking for leases more and more slowly" in line for line in caplog.messages) == 1


async def test_one_that_fails_now_and_then_is_not_slowed_down() -> None:
    link = await hired(lambda number: "environment_error" if number % 4 else "done", 0.5)
    assert link.granted > 300


async def test_an_error_is_one_line_of_plain_text(caplog: pytest.LogCaptureFixture) -> None:
    await hired(lambda _: "environment_error", 0.1, "ValueError: \x1b[2Jgone\n12:00:00 ERROR rollout: forged")
    assert any(line.startswith("lease 1 ended as environment_error: ValueError: ") for line in caplog.messages)
    assert any("the newest as environment_error: ValueError" in line for line in caplog.messages)
    assert not any("\x1b" in line or "\n" in line for line in caplog.messages)


async def test_an_episode_that_is_cancelled_before_it_begins_fails_and_frees_its_place() -> None:
    gate, outbox = Gate(), Outbox(False)
    standing = Standing(MemberGuard(job_uid="uid", name="rollout-0"))
    agent = Agent(lambda _: "done")
    crew = Crew(2, cast("Any", agent), cast("Any", Link()), gate, outbox, standing, Tally())
    before = asyncio.all_tasks()
    crew._start(lease(7))
    for task in asyncio.all_tasks() - before:
        task.cancel()
    await asyncio.sleep(0.01)
    assert (agent.played, crew.episodes, outbox.unacknowledged) == (0, {}, [7])
    assert "cancels tasks that are not its own" in outbox.next(1)[0].error


async def test_a_good_episode_ends_the_rest() -> None:
    link = await hired(lambda number: "environment_error" if number <= 40 else "done", 1.5)
    assert link.granted > 300


async def test_a_dropped_episode_that_ends_all_the_same_is_not_sent() -> None:
    class Late(Agent):
        async def play(self, episode: Episode) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                episode.end("done")

    gate, outbox = Gate(), Outbox(False)
    gate.open()
    standing = Standing(MemberGuard(job_uid="uid", name="rollout-0"))
    crew = Crew(2, cast("Any", Late(lambda _: "done")), cast("Any", Link()), gate, outbox, standing, Tally())
    task = asyncio.create_task(crew.run())
    await asyncio.sleep(0.02)
    crew.drop_all("drained")
    crew.stop_hiring()
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert outbox.unacknowledged == []
    assert {1, 2} <= outbox.returns
    crew.drop_all("stopped")
    await asyncio.sleep(0.01)
