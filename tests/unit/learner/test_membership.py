"""Whose word ends a sync that nobody drives: a member's of it, and not before the learner's own clock allows for it."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.ledger.builders import JOB, published_hash, record, settings

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.membership import Heartbeat
from asyncppo_runtime.learner.membership import Membership
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.ledger.ledger import Ledger

PAUSE = 60.0


def address(name: str, incarnation: int, epoch: int) -> Envelope:
    return Envelope(job_uid=JOB, epoch=epoch, target=name, incarnation=incarnation)


class Scene:
    """A sync of member `a` is under way; `late` joined in the middle of it."""

    def __init__(self, ledger: OwnThread[Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
        self.ledger, self.now = ledger, 100.0
        self.closed: list[int] = []
        monkeypatch.setattr("asyncppo_runtime.learner.membership.time", SimpleNamespace(monotonic=lambda: self.now))
        self.membership = Membership(ledger, Notice(), lambda: False, self.close, PAUSE)

    async def close(self, epoch: int) -> None:
        self.closed.append(epoch)

    async def begin(self) -> None:
        await self.ledger(Ledger.publish, record(0, parent=-1), None, [], [], b"", 0.0)
        member = await self.ledger(Ledger.join, "a", "http://a:1", 0.0)
        await self.ledger(Ledger.ready, address("a", member.incarnation, 0), 0, published_hash(0), 0.0)
        await self.ledger(Ledger.begin, "c", 0, 0.0)
        await self.ledger(Ledger.join, "late", "http://late:1", 0.0)

    async def expired(self, name: str = "a", incarnation: int = 1, epoch: int = 1) -> bool:
        """Whether this sender's word ended something."""
        before = len(self.closed)
        await self.membership.heartbeat(
            Heartbeat(
                envelope=address(name, incarnation, epoch),
                version=0,
                lease_ids=[],
                paused=True,
                pause_expired=True,
            )
        )
        return len(self.closed) > before


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    ledger = OwnThread("ledger", lambda: Ledger.open(tmp_path / "ledger.db", settings(), 0.0))
    made = Scene(ledger, monkeypatch)
    await made.begin()
    yield made
    ledger.close(Ledger.close)


async def test_an_expired_pause_is_believed_when_the_learners_clock_says_so_too(scene: Scene) -> None:
    assert not await scene.expired(), "the epoch has only just begun"
    scene.now += PAUSE - 1
    assert not await scene.expired()
    scene.now += 1
    assert await scene.expired()
    assert scene.closed == [1]


async def test_only_a_member_of_the_epoch_ends_it(scene: Scene) -> None:
    assert not await scene.expired()
    scene.now += PAUSE
    assert not await scene.expired("stranger")
    assert not await scene.expired("late", 2), "it is no part of this sync"
    assert not await scene.expired(incarnation=2)
    assert not await scene.expired(epoch=0)
    await scene.ledger(Ledger.join, "a", "http://a:1", 0.0)
    assert not await scene.expired(), "an older incarnation"


async def test_every_epoch_has_its_own_time(scene: Scene) -> None:
    assert not await scene.expired()
    scene.now += PAUSE
    await scene.ledger(Ledger.begin, "c2", 1, 0.0)
    assert not await scene.expired(epoch=2)
    scene.now += PAUSE
    assert await scene.expired(epoch=2)
