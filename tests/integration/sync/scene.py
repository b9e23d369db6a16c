"""A learner, rollouts and coordinators over real HTTP on this machine. Owns starting, waiting and stopping."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from asyncppo.sync.columns import SealRule
from asyncppo.sync.coordinator import Coordinator
from asyncppo.sync.limits import SyncLimits
from asyncppo.sync.machine import State
from asyncppo.sync.simulation.learner import SimulatedLearner
from asyncppo.sync.simulation.rollout import SimulatedRollout
from asyncppo.wire.client import WireClient
from asyncppo.wire.membership import MemberState

TOKEN = "a-token"
LIMITS = SyncLimits(pause=20.0, load=20.0, learner=10.0, watch=1.0, stall=0.5, pause_ttl=20.0)
PATIENCE = 60.0


class Scene:
    """What runs."""

    def __init__(self, learner: SimulatedLearner, client: WireClient) -> None:
        self.learner = learner
        self.client = client
        self.rollouts: list[SimulatedRollout] = []
        self.running: dict[str, asyncio.Task[None]] = {}
        self.phases: list[str] = []

    async def rollout(self, name: str) -> SimulatedRollout:
        """A rollout more."""
        one = SimulatedRollout(
            TOKEN,
            self.learner.url,
            name,
            column=self.learner.books.column,
            beat=0.02,
            lease_of=self.learner.lease_of,
        )
        await one.start()
        self.rollouts.append(one)
        return one

    async def gone(self, one: SimulatedRollout) -> None:
        """Kill it."""
        self.rollouts.remove(one)
        await one.stop()

    def coordinate(self, name: str, limits: SyncLimits = LIMITS) -> Coordinator:
        """A coordinator more."""

        def note(before: State, after: State, seconds: float) -> None:
            self.phases.append(after.phase.value)

        one = Coordinator(self.client, self.learner.url, name, limits, note)
        self.running[name] = asyncio.create_task(one.run())
        return one

    async def kill(self, name: str) -> None:
        """The coordinator is gone."""
        task = self.running.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something, generously. A coordinator that fails meanwhile fails the test."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            for task in self.running.values():
                if task.done():
                    task.result()
            assert asyncio.get_running_loop().time() < deadline, f"in vain; {self.learner.books}"
            await asyncio.sleep(0.02)

    async def members(self, count: int, state: MemberState = MemberState.READY) -> None:
        """Wait until so many members are in a state."""
        await self.until(lambda: sum(each.state is state for each in self.learner.books.members) >= count)

    async def over(self) -> None:
        """Wait for the end of the job."""
        await self.until(lambda: self.learner.books.finished)

    def check(self) -> None:
        """Each version was stepped from once; every segment of a sealed version that is in the ledger is scored; no rollout that the
        ledger still counts has a segment of a sealed version that the ledger lacks."""
        books = self.learner.books
        assert self.learner.trained == list(range(len(self.learner.trained)))
        recorded = {(item.lease_id, item.index): item for item in books.segments}
        assert all(item.state == "Scored" for item in books.segments if item.version <= books.sealed_version)
        if books.rule is not SealRule.NONE:
            live = {lease.lease_id for lease in books.leases if self._counted(lease.member, lease.incarnation)}
            for one in self.rollouts:
                for lease, index, version in one.sampled:
                    if lease in live and version <= books.sealed_version:
                        assert (lease, index) in recorded, f"segment {index} of lease {lease} is lost"

    def _counted(self, name: str, incarnation: int) -> bool:
        member = self.learner.books.member(name)
        return member is not None and member.incarnation == incarnation and member.state is MemberState.READY


@asynccontextmanager
async def scene(column: str = "Barrier", *, versions: int = 3, rollouts: int = 2) -> AsyncIterator[Scene]:
    """A learner and rollouts that are ready and sample; no coordinator yet."""
    learner = SimulatedLearner(TOKEN, column, versions, pace=0.1)
    await learner.start()
    async with WireClient(TOKEN) as client:
        one = Scene(learner, client)
        try:
            for number in range(rollouts):
                await one.rollout(f"r{number}")
            await one.members(rollouts)
            yield one
            one.check()
        finally:
            for name in list(one.running):
                await one.kill(name)
            for rollout in list(one.rollouts):
                await one.gone(rollout)
            await learner.stop()
