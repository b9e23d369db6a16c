"""When the learner gives up hope: nothing but failures comes in, over all rollouts, and not merely the quick ones of many."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import msgpack, structs
from tests.unit.api.builders import spec as make_spec
from tests.unit.ledger.builders import Job, trajectory

from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Lease, RawUpload, Upload
from asyncppo_runtime.learner.errors import EpisodesError, LearnerError
from asyncppo_runtime.learner.experience import Experience
from asyncppo_runtime.learner.notice import Notice
from asyncppo_runtime.learner.threads import OwnThread
from asyncppo_runtime.ledger.ledger import Ledger

FAIL_AFTER = 6


class Inline:
    """The ledger's thread is the test's."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    async def __call__(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return method(self.ledger, *arguments)


class Scene:
    """A service over a ledger on version 0, and what it said of the job's end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.failures: list[LearnerError] = []
        self.experience = Experience(
            make_spec({"environment.failAfter": FAIL_AFTER}),
            cast("OwnThread[Ledger]", Inline(job.ledger)),
            Notice(),
            lambda: 0,
            lambda: 10,
            lambda: None,
            lambda: False,
            lambda: False,
            self.failures.append,
        )

    def receive(self, sender: Envelope, lease: Lease, error: str = "") -> None:
        played = trajectory(lease, end_reason="environment_error" if error else "done")
        body = msgpack.encode(Upload(sender, [structs.replace(played, error=error)]))
        asyncio.run(self.experience.receive(msgpack.decode(body, type=RawUpload)))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    job = Job(tmp_path / "ledger.db")
    job.publish(0)
    return Scene(job)


def test_so_many_failures_in_a_row_over_all_rollouts_end_the_job(scene: Scene) -> None:
    senders = [scene.job.member("r0"), scene.job.member("r1")]
    for number in range(FAIL_AFTER):
        assert scene.failures == []
        sender = senders[number % 2]
        scene.receive(sender, scene.job.grant(sender, 1)[0], "KeyError: 'answer'")
    (error,) = scene.failures
    assert isinstance(error, EpisodesError)
    assert "the last 6 trajectories were discarded, all as environment_error: KeyError: 'answer'" in str(error)
    assert "mend the environment" in str(error)


def test_one_good_trajectory_between_them_is_hope(scene: Scene) -> None:
    sender = scene.job.member()
    for number in range(3 * FAIL_AFTER):
        good = number % FAIL_AFTER == FAIL_AFTER - 1
        scene.receive(sender, scene.job.grant(sender, 1)[0], "" if good else "KeyError: 'answer'")
    assert scene.failures == []


def test_the_quick_failures_of_many_say_nothing_while_the_good_ones_are_under_way(scene: Scene) -> None:
    """Half of the episodes fail at once, the others take their time: what comes in first is a row of failures."""
    sender = scene.job.member()
    leases = scene.job.grant(sender, 12, allowed=50)
    for lease in leases[:6]:
        scene.receive(sender, lease, "KeyError: 'answer'")
    assert scene.failures == []
    scene.receive(sender, leases[6])
    assert scene.failures == []


def test_the_end_says_how_many_it_took_where_many_are_under_way(scene: Scene) -> None:
    sender = scene.job.member()
    leases = scene.job.grant(sender, 12, allowed=50)
    for lease in leases[:8]:
        scene.receive(sender, lease, "KeyError: 'answer'")
    (error,) = scene.failures
    assert "the last 8 trajectories" in str(error)
    assert "(environment.failAfter 6, here 8: twice as many as were under way)" in str(error)
